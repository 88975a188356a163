"""From a request to its answer: who may ask, and what the Hub says at each address; no sockets."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

import hub_store
from hub_store import Answer, Blob, Commit, Refusal, Repo, Request, as_json


@dataclass(frozen=True)
class Call:
    """A request on its way to its route: the decoded parts of its path, and who asks, empty if nobody."""

    request: Request
    part: Mapping[str, str]
    user: str
    repo: Repo


class Hub:
    """All repositories, who may do what, and the way from a request to an answer."""

    def __init__(self) -> None:
        self.url = ""
        self.tokens = {"hf_write_secret": "alice"}
        self.read_tokens = {"hf_read_secret": "bob"}
        self.closed: set[str] = set()
        """Namespaces that nobody may write to."""
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        """Uploaded LFS content by sha256, whether or not a commit uses it."""
        self.page_entries = 1000
        """Entries of one answer of the tree route."""
        self.spoil_info: Callable[[dict[str, Any]], None] | None = None
        """Changes what a repository says of itself."""
        self.lock = threading.RLock()

    def answer(self, request: Request) -> Answer:
        with self.lock:
            try:
                return self._route(request)
            except Refusal as refusal:
                return refusal.answer(request.target)

    def _route(self, request: Request) -> Answer:
        user = self.user(request)
        # The path is split before it is decoded, so that the revision dev/x stays one part.
        line = f"{request.method} {request.target.partition('?')[0]}"
        for pattern, writes, action in _ROUTES:
            if match := pattern.fullmatch(line):
                part = {name: unquote(value or "") for name, value in match.groupdict().items()}
                repo = self.repo(part["kind"], part["repo"], user) if "repo" in part else Repo("", "")
                if writes:
                    self.require_write(request, repo.id)
                return action(self, Call(request, part, user, repo))
        raise Refusal(404, f"Sorry, we can't find {request.target}")

    def user(self, request: Request) -> str:
        """Who asks; empty without a token."""
        name = {**self.read_tokens, **self.tokens}.get(request.token, "")
        if request.token and not name:
            raise Refusal(401, hub_store.BAD_TOKEN)
        return name

    def repo(self, kind: str, name: str, user: str) -> Repo:
        found = self.repos.get((kind or "model", name))
        if found is None or (found.private and not user):
            raise Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        return found

    def require_write(self, request: Request, repo: str) -> None:
        if not request.token:
            raise Refusal(401, "Invalid username or password.")
        if request.token not in self.tokens or repo.partition("/")[0] in self.closed:
            raise Refusal(403, f"You don't have the rights to write to {repo}")


Action = Callable[[Hub, Call], Answer]
_ROUTES: list[tuple[re.Pattern[str], bool, Action]] = []


def route(pattern: str, *, writes: bool = False) -> Callable[[Action], Action]:
    """Register a function for ``METHOD path``; ``{api}`` and ``{web}`` are a repository's two addresses."""
    repo = r"(?P<repo>[^/]+/[^/]+{})"
    text = pattern.replace("{api}", r"/api/(?P<kind>model|dataset)s/" + repo.format(""))
    text = text.replace("{web}", r"/(?:(?P<kind>dataset)s/)?" + repo.format("?"))

    def register(action: Action) -> Action:
        _ROUTES.append((re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", text)), writes, action))
        return action

    return register


@route("GET /api/whoami-v2")
def _whoami(hub: Hub, call: Call) -> Answer:
    if not call.user:
        raise Refusal(401, hub_store.BAD_TOKEN)
    role = "write" if call.request.token in hub.tokens else "read"
    auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": role}}
    return as_json({"type": "user", "name": call.user, "orgs": [], "auth": auth})


@route("POST /api/validate-yaml")
def _validate(hub: Hub, call: Call) -> Answer:
    errors, warnings = hub_store.card_problems(call.request.json()["content"])
    said = {
        "errors": [{"message": text} for text in errors],
        "warnings": [{"message": text} for text in warnings],
    }
    return as_json(said, status=400 if errors else 200)


@route("POST /api/repos/create")
@route("DELETE /api/repos/delete")
def _create_or_delete(hub: Hub, call: Call) -> Answer:
    asked = call.request.json()
    kind, name = asked.get("type") or "model", f"{asked.get('organization') or call.user}/{asked['name']}"
    hub.require_write(call.request, name)
    url = f"{hub.url}/{'datasets/' * (kind == 'dataset')}{name}"
    if call.request.method == "DELETE":
        hub.repo(kind, name, call.user)
        del hub.repos[kind, name]
    elif (kind, name) in hub.repos:
        raise Refusal(409, f"You already created this {kind} repo", url=url)
    else:
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        made = hub.repos[kind, name] = Repo(kind, name, private)
        made.commit("main", {".gitattributes": Blob(hub_store.GITATTRIBUTES)}, "initial commit")
    return as_json({"url": url})


@route("GET {api}")
@route("GET {api}/revision/{rev}")
def _info(hub: Hub, call: Call) -> Answer:
    commit = call.repo.find(call.part.get("rev", "main"))
    document = call.repo.info(commit, blobs=call.request.query("blobs").lower() == "true")
    if hub.spoil_info is not None:
        hub.spoil_info(document)
    return as_json(document)


@route(r"GET {api}/tree/{rev}(?:/(?P<path>.+))?")
def _tree(hub: Hub, call: Call) -> Answer:
    entries, inside = call.repo.find(call.part["rev"]).entries(), call.part["path"]
    if inside and entries.get(inside, {}).get("type") != "directory":
        raise Refusal(404, f"{inside} does not exist", "EntryNotFound")
    below = {
        path: entry for path, entry in entries.items() if path.startswith(inside + "/" if inside else "")
    }
    if call.request.query("recursive").lower() != "true":
        depth = inside.count("/") + bool(inside)
        below = {path: entry for path, entry in below.items() if path.count("/") == depth}
    start = int(call.request.query("cursor") or 0)
    end = start + hub.page_entries
    path = re.sub(r"&cursor=\d+", "", call.request.target)
    more = {"Link": f'<{hub.url}{path}&cursor={end}>; rel="next"'} if end < len(below) else None
    return as_json(list(below.values())[start:end], headers=more)


@route("POST {api}/paths-info/{rev}")
def _paths_info(hub: Hub, call: Call) -> Answer:
    entries = call.repo.find(call.part["rev"]).entries()
    asked = parse_qs(call.request.body.decode()).get("paths", [])
    return as_json([entries[path.rstrip("/")] for path in asked if path.rstrip("/") in entries])


@route("GET {api}/refs")
def _refs(hub: Hub, call: Call) -> Answer:
    return as_json(call.repo.refs())


@route("GET {api}/commits/{rev}")
def _commits(hub: Hub, call: Call) -> Answer:
    def row(commit: Commit) -> dict[str, object]:
        about = {"id": commit.id, "title": commit.title, "message": commit.message, "date": commit.date}
        return {**about, "authors": [{"user": call.repo.id.partition("/")[0]}]}

    return as_json([row(commit) for commit in call.repo.history(call.part["rev"])])


@route(r"(?:POST|DELETE) {api}/(?P<what>branch|tag)/{rev}", writes=True)
def _refer(hub: Hub, call: Call) -> Answer:
    rev, asked = call.part["rev"], call.request.json()
    known, name, start = call.repo.tags, asked.get("tag", rev), rev
    if call.part["what"] == "branch":
        known, name, start = call.repo.branches, rev, asked.get("startingPoint", "main")
    if call.request.method == "DELETE":
        if known.pop(name, None) is None:
            raise Refusal(404, f"Invalid rev id: {name}", "RevisionNotFound")
    elif name in known:
        raise Refusal(409, f"Reference already exists: {name}")
    else:
        known[name] = call.repo.find(start).id
    return as_json({})


@route("POST {api}/preupload/{rev}", writes=True)
def _preupload(hub: Hub, call: Call) -> Answer:
    files = call.repo.find(call.part["rev"]).files

    def mode(asked: Mapping[str, object]) -> dict[str, object]:
        path, size = str(asked["path"]), int(str(asked["size"]))
        sample = base64.b64decode(str(asked["sample"]))
        chosen = "lfs" if hub_store.goes_to_lfs(path, sample, size) else "regular"
        oid = {"oid": files[path].etag} if path in files else {}
        return {"path": path, "uploadMode": chosen, "shouldIgnore": False, **oid}

    return as_json({"files": [mode(asked) for asked in call.request.json()["files"]]})


@route("POST {api}/commit/{rev}", writes=True)
def _commit(hub: Hub, call: Call) -> Answer:
    header, *lines = [json.loads(line) for line in call.request.body.split(b"\n") if line]
    about, branch = header["value"], call.part["rev"]
    if branch not in call.repo.branches:
        raise Refusal(404, f"Invalid rev id: {branch}", "RevisionNotFound")
    head = call.repo.find(branch)
    if about.get("parentCommit", head.id) != head.id:
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    after = hub_store.changed(head.files, lines, hub.objects)
    pull: dict[str, str] = {}
    if call.request.query("create_pr"):
        number = 1 + sum(name.startswith("refs/pr/") for name in call.repo.branches)
        branch = f"refs/pr/{number}"
        call.repo.branches[branch] = head.id
        pull = {"pullRequestUrl": f"{hub.url}/{call.repo.id}/discussions/{number}"}
    made = call.repo.commit(branch, after, about["summary"], about.get("description", ""))
    return as_json({"commitOid": made.id, "commitUrl": f"{hub.url}/{call.repo.id}/commit/{made.id}", **pull})


@route("POST {web}.git/info/lfs/objects/batch", writes=True)
def _lfs_batch(hub: Hub, call: Call) -> Answer:
    def offer(asked: dict[str, object]) -> dict[str, object]:
        verify = {"href": f"{hub.url}/{call.repo.id}.git/info/lfs/verify"}
        actions = {"upload": {"href": f"{hub.url}/storage/{asked['oid']}"}, "verify": verify}
        return asked if asked["oid"] in hub.objects else {**asked, "actions": actions}

    return as_json(
        {"transfer": "basic", "objects": [offer(asked) for asked in call.request.json()["objects"]]}
    )


@route("PUT /storage/{oid}")
def _lfs_store(hub: Hub, call: Call) -> Answer:
    """The address is the permission: the client sends no token here."""
    content = call.request.body
    if hashlib.sha256(content).hexdigest() != call.part["oid"]:
        raise Refusal(400, "The content does not have the promised sha256")
    hub.objects[call.part["oid"]] = content
    return Answer()


@route("POST {web}.git/info/lfs/verify", writes=True)
def _lfs_verify(hub: Hub, call: Call) -> Answer:
    asked = call.request.json()
    if len(hub.objects.get(asked["oid"], b"")) != asked["size"]:
        raise Refusal(404, "Object not found in the store")
    return as_json({})


@route("(?:GET|HEAD) {web}/resolve/{rev}/(?P<path>.+)")
def _resolve(hub: Hub, call: Call) -> Answer:
    commit = call.repo.find(call.part["rev"])
    blob = commit.files.get(call.part["path"])
    headers = {"X-Repo-Commit": commit.id, "Accept-Ranges": "bytes"}
    if blob is None:
        return Refusal(404, "Entry not found", "EntryNotFound").answer(call.request.target, headers)
    headers |= {"ETag": f'"{blob.etag}"', "Content-Type": "application/octet-stream"}
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", call.request.headers.get("range", ""))
    if asked is None or call.request.method == "HEAD":
        return Answer(blob.data, headers)
    size, start = len(blob.data), int(asked[1])
    end = min(int(asked[2] or size), size - 1) + 1
    if start >= end:
        return Answer(b"", {**headers, "Content-Range": f"bytes */{size}"}, 416)
    return Answer(blob.data[start:end], {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"}, 206)


@route("(?:GET|HEAD) /")
def _front_page(hub: Hub, call: Call) -> Answer:
    return Answer(b"a Hub for tests\n")
