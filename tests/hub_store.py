"""What a Hub holds, in memory, and how its requests and answers look; ``hub_routes`` connects the two."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs

BAD_TOKEN = "Invalid credentials in Authorization header"
_LFS_NAMES = re.compile(r"\.(safetensors|bin|pt|pth|ckpt|npz|npy|parquet|arrow|h5|onnx|zip|gz|tar|pkl)$")
_LFS_BYTES = 10 * 2**20
GITATTRIBUTES = (
    b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.bin filter=lfs diff=lfs merge=lfs -text\n"
)
_LICENSES = re.compile(
    "apache-2.0|mit|bsd(-[23]-clause)?|cc0-1.0|cc-by(-sa|-nc)?-4.0|[al]?gpl-[23].0|mpl-2.0|isc|unlicense|other"
)


@dataclass(frozen=True)
class Request:
    """One request; ``target`` is path and query as sent, header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def query(self, name: str) -> str:
        return parse_qs(self.target.partition("?")[2]).get(name, [""])[0]


@dataclass(frozen=True)
class Answer:
    """One answer; for HEAD the body is what GET would send."""

    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


def as_json(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})}, status)


class Refusal(Exception):
    """An answer with an error status; ``code`` is the Hub's X-Error-Code, ``more`` joins the JSON body."""

    def __init__(self, status: int, message: str, code: str = "", **more: object) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.more = status, message, code, more

    def answer(self, target: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Over https the client takes any 401 for a missing repository, over http only one with its code."""
        about_repo = re.match(r"/api/(models|datasets)/|/.+/resolve/", target)
        assumed = "RepoNotFound" if self.status == 401 and about_repo and self.message != BAD_TOKEN else ""
        marks = {"X-Error-Message": self.message, "X-Error-Code": self.code or assumed, **(headers or {})}
        kept = {name: value for name, value in marks.items() if value}
        return as_json({"error": self.message, **self.more}, status=self.status, headers=kept)


@dataclass(frozen=True)
class Blob:
    """The content of a file and whether it went through LFS."""

    data: bytes
    lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def git_oid(self) -> str:
        """Of what git stores, which for LFS is a pointer."""
        pointer = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
        )
        content = pointer.encode() if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git_oid

    def entry(self, path: str) -> dict[str, object]:
        """As the tree and paths-info routes describe it."""
        lfs = {"lfs": {"oid": self.sha256, "size": len(self.data), "pointerSize": 134}} if self.lfs else {}
        return {"type": "file", "path": path, "size": len(self.data), "oid": self.git_oid, **lfs}

    def sibling(self, path: str) -> dict[str, object]:
        """As repo info describes it when asked for blobs."""
        lfs = {"lfs": {"sha256": self.sha256, "size": len(self.data), "pointerSize": 134}} if self.lfs else {}
        return {"rfilename": path, "size": len(self.data), "blobId": self.git_oid, **lfs}

    @classmethod
    def of(cls, path: str, data: bytes) -> Blob:
        return cls(data, goes_to_lfs(path, data[:512], len(data)))


def goes_to_lfs(path: str, sample: bytes, size: int) -> bool:
    """As the Hub decides: by name, for binary content and for large files, but never for empty ones."""
    return size > 0 and (bool(_LFS_NAMES.search(path)) or b"\0" in sample or size > _LFS_BYTES)


@dataclass(frozen=True)
class Commit:
    """One state of all files."""

    id: str
    parent: str | None
    title: str
    message: str
    date: str
    files: Mapping[str, Blob]

    def entries(self) -> dict[str, dict[str, object]]:
        """Every file and folder by path, as the tree route describes it."""
        names = {path[:at] for path in self.files for at, letter in enumerate(path) if letter == "/"}
        found = {
            name: {
                "type": "directory",
                "path": name,
                "size": 0,
                "oid": hashlib.sha1(name.encode()).hexdigest(),
            }
            for name in names
        }
        found |= {path: blob.entry(path) for path, blob in self.files.items()}
        return dict(sorted(found.items()))


@dataclass
class Repo:
    """Commits, branches and tags by name; a pull request is a branch ``refs/pr/N``."""

    kind: str
    id: str
    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def find(self, revision: str) -> Commit:
        """The commit of a branch, a tag, a full reference or a 40-hex id."""
        name = re.sub(r"^refs/(heads|tags)/", "", revision)
        found = self.commits.get(self.branches.get(name) or self.tags.get(name) or revision)
        if found is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def commit(self, branch: str, files: Mapping[str, Blob], title: str, message: str = "") -> Commit:
        """A new commit of exactly these files at the tip of a branch, which is made if it is missing."""
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        made = Commit(secrets.token_hex(20), self.branches.get(branch), title, message, date, dict(files))
        self.commits[made.id] = made
        self.branches[branch] = made.id
        return made

    def history(self, revision: str) -> list[Commit]:
        """Newest first."""
        found = [self.find(revision)]
        while (parent := found[-1].parent) is not None:
            found.append(self.commits[parent])
        return found

    def info(self, commit: Commit, *, blobs: bool) -> dict[str, object]:
        """As the repo info route describes it."""
        files = commit.files.items()
        siblings = [blob.sibling(path) if blobs else {"rfilename": path} for path, blob in files]
        return {"id": self.id, "sha": commit.id, "private": self.private, "siblings": siblings, "tags": []}

    def refs(self) -> dict[str, list[dict[str, str]]]:
        """As the refs route describes them."""
        rows: dict[str, list[dict[str, str]]] = {
            "branches": [],
            "tags": [],
            "pullRequests": [],
            "converts": [],
        }
        for name, commit in self.branches.items():
            pull = name.startswith("refs/")
            row = {"name": name, "ref": name if pull else f"refs/heads/{name}", "targetCommit": commit}
            rows["pullRequests" if pull else "branches"].append(row)
        for name, commit in self.tags.items():
            rows["tags"].append({"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit})
        return rows


def changed(files: Mapping[str, Blob], lines: list[Any], objects: Mapping[str, bytes]) -> dict[str, Blob]:
    """The files after the operations of a commit request; LFS content must have been uploaded before."""
    after = dict(files)
    for line in lines:
        value, path = line["value"], line["value"]["path"]
        inside = [name for name in after if name.startswith(path.rstrip("/") + "/")]
        match line["key"]:
            case "file":
                after[path] = Blob(base64.b64decode(value["content"]))
            case "lfsFile" if len(objects.get(value["oid"], b"")) == value["size"]:
                after[path] = Blob(objects[value["oid"]], lfs=True)
            case "deletedFile" if path in after:
                del after[path]
            case "deletedFolder" if inside:
                after = {name: blob for name, blob in after.items() if name not in inside}
            case "deletedFile" | "deletedFolder":
                raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            case key:
                raise Refusal(400, f"LFS object of {path} is not in the store, or {key} is unknown")
    return after


def card_problems(content: str) -> tuple[list[str], list[str]]:
    """Errors and warnings about a model card: a small part of what the Hub checks."""
    lines = content.removeprefix("\ufeff").splitlines()
    if not lines or lines[0] != "---":
        return [], ["empty or missing yaml metadata in repo card"]
    if "---" not in lines[1:]:
        return ["the yaml metadata is not closed"], []
    block = lines[1 : lines.index("---", 1)]
    unreadable = [line for line in block if not re.match(r"$|\s*#| |- |-$|[^\t]+?:(\s|$)", line)]
    licenses = [line[8:].strip(" \"'") for line in block if line.startswith("license:")]
    errors = [f"cannot read {line!r}" for line in unreadable]
    return errors + [
        f'"license" must not be {name!r}' for name in licenses if not _LICENSES.fullmatch(name)
    ], []
