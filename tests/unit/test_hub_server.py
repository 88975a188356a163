"""The Hub for tests, asked by the real Hub client only."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from hub_client import FILES, REPO, TEXT, WEIGHTS, download, push
from hub_server import Fault, HubServer
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, hf_hub_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


@pytest.fixture
def api(hub_server: HubServer) -> HfApi:
    return HfApi(endpoint=hub_server.url, token="hf_write_secret")


def test_it_starts_and_stops_quickly() -> None:
    start = time.monotonic()
    for _ in range(10):
        HubServer().stop()
    assert time.monotonic() - start < 1


def test_publish_and_read_back(hub_server: HubServer, api: HfApi) -> None:
    assert api.create_repo(REPO).repo_id == REPO
    first = hub_server.head(REPO)
    commit = push(api, parent_commit=first)
    assert hub_server.commits(REPO) == [commit, first]
    assert hub_server.files(REPO) == {
        **FILES,
        ".gitattributes": hub_server.files(REPO, first)[".gitattributes"],
    }
    assert [line.partition("?")[0] for line in hub_server.requests if "storage" in line or "lfs" in line] == [
        f"POST /{REPO}.git/info/lfs/objects/batch",
        f"PUT /storage/{hashlib.sha256(WEIGHTS).hexdigest()}",
        f"POST /{REPO}.git/info/lfs/verify",
    ]
    info = api.model_info(REPO, files_metadata=True)
    assert info.sha == commit
    described = {file.rfilename: file for file in info.siblings or []}
    assert described["config.json"].lfs is None
    assert described["config.json"].size == len(TEXT)
    assert described["weights/model.safetensors"].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    folder = Path(huggingface_hub.snapshot_download(REPO))
    assert folder.name == commit
    assert {path: (folder / path).read_bytes() for path in FILES} == FILES


def test_tree_paths_and_pages(hub_server: HubServer, api: HfApi) -> None:
    commit = hub_server.add(REPO, {**FILES, "weights/deep/er.txt": b"x"})
    hub_server.page_entries = 2
    entries = list(api.list_repo_tree(REPO, recursive=True))
    assert [entry.path for entry in entries] == [
        "config.json",
        "weights",
        "weights/deep",
        "weights/deep/er.txt",
        "weights/model.safetensors",
    ]
    assert entries[0].blob_id == hashlib.sha1(b"blob %d\0" % len(TEXT) + TEXT).hexdigest()
    assert entries[-1].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert [entry.path for entry in api.list_repo_tree(REPO)] == ["config.json", "weights"]
    inside = api.list_repo_tree(REPO, "weights", revision=commit)
    assert [entry.path for entry in inside] == ["weights/deep", "weights/model.safetensors"]
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(REPO, "nowhere"))
    found = api.get_paths_info(REPO, ["config.json", "weights", "nowhere"])
    assert [entry.path for entry in found] == ["config.json", "weights"]


def test_unchanged_upload_makes_no_commit(hub_server: HubServer, api: HfApi) -> None:
    hub_server.add(REPO, FILES)
    before = hub_server.commits(REPO)
    assert push(api) == before[0]
    assert hub_server.commits(REPO) == before
    assert not any(line.startswith("PUT") for line in hub_server.requests)


def test_stale_parent_is_refused(hub_server: HubServer, api: HfApi) -> None:
    old = hub_server.add(REPO, FILES)
    new = hub_server.add(REPO, {"config.json": b"{}"})
    with pytest.raises(HfHubHTTPError) as caught:
        push(api, parent_commit=old)
    assert caught.value.response.status_code == 412
    assert hub_server.head(REPO) == new
    assert hub_server.files(REPO, old) == FILES


def test_delete_file_folder_and_repo(hub_server: HubServer, api: HfApi) -> None:
    hub_server.add(REPO, FILES)
    api.delete_file("config.json", REPO)
    api.delete_folder("weights", REPO)
    assert hub_server.files(REPO) == {}
    with pytest.raises(RemoteEntryNotFoundError):
        api.create_commit(REPO, [CommitOperationDelete("config.json")], commit_message="Again")
    api.delete_repo(REPO)
    assert not api.repo_exists(REPO)


def test_branches_tags_and_history(hub_server: HubServer, api: HfApi) -> None:
    first = hub_server.add(REPO, {"config.json": b"{}"})
    api.create_tag(REPO, tag="v1")
    api.create_branch(REPO, branch="dev/x")
    second = push(api, revision="dev/x")
    assert hub_server.tags(REPO) == {"v1": first}
    assert hub_server.commits(REPO, "dev/x") == [second, first]
    assert hub_server.head(REPO) == first
    assert [commit.commit_id for commit in api.list_repo_commits(REPO, revision="dev/x")] == [second, first]
    refs = api.list_repo_refs(REPO)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": first, "dev/x": second}
    assert {ref.ref: ref.target_commit for ref in refs.tags} == {"refs/tags/v1": first}
    assert api.repo_info(REPO, revision="dev/x").sha == second
    assert Path(hf_hub_download(REPO, "config.json", revision="dev/x")).read_bytes() == TEXT
    assert Path(hf_hub_download(REPO, "config.json", revision="v1")).read_bytes() == b"{}"
    for again in (lambda: api.create_tag(REPO, tag="v1"), lambda: api.create_branch(REPO, branch="dev/x")):
        with pytest.raises(HfHubHTTPError, match="409"):
            again()
    api.delete_tag(REPO, tag="v1")
    api.delete_branch(REPO, branch="dev/x")
    assert hub_server.tags(REPO) == {}
    with pytest.raises(RevisionNotFoundError):
        api.repo_info(REPO, revision="dev/x")


def test_pull_request_leaves_main(hub_server: HubServer, api: HfApi) -> None:
    first = hub_server.add(REPO, {"config.json": b"{}"})
    made = api.create_commit(REPO, [CommitOperationAdd("a.txt", b"a")], commit_message="Ask", create_pr=True)
    assert made.pr_num == 1
    assert hub_server.head(REPO) == first
    assert hub_server.files(REPO, "refs/pr/1") == {"config.json": b"{}", "a.txt": b"a"}


def test_existing_repo(hub_server: HubServer, api: HfApi) -> None:
    api.create_repo("net", private=True)
    assert hub_server.is_private(REPO)
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(REPO)


def test_private_repo(hub_server: HubServer, api: HfApi) -> None:
    hub_server.add(REPO, FILES, private=True)
    for token in (False, "hf_unknown"):
        with pytest.raises(HfHubHTTPError) as caught:
            api.model_info(REPO, token=token)
        assert isinstance(caught.value, RepositoryNotFoundError) == (token is False)
        assert caught.value.response.status_code == 401
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download(REPO, "config.json", token=False)
    assert api.model_info(REPO, token="hf_read_secret").private
    assert Path(hf_hub_download(REPO, "config.json", token="hf_read_secret")).read_bytes() == TEXT


@pytest.mark.parametrize(("token", "status"), [(False, 401), ("hf_read_secret", 403), ("hf_unknown", 401)])
def test_writing_needs_the_right(hub_server: HubServer, api: HfApi, token: str | bool, status: int) -> None:
    before = hub_server.add(REPO, FILES)
    operations = [CommitOperationAdd("a.txt", b"a")]
    calls: list[Callable[[], object]] = [
        lambda: api.create_commit(REPO, operations, commit_message="Try", token=token),
        lambda: api.create_repo("alice/other", token=token),
        lambda: api.create_tag(REPO, tag="v1", token=token),
        lambda: api.delete_repo(REPO, token=token),
    ]
    for call in calls:
        with pytest.raises(HfHubHTTPError) as caught:
            call()
        assert caught.value.response.status_code == status
    assert hub_server.head(REPO) == before
    assert hub_server.tags(REPO) == {}


def test_closed_namespace(hub_server: HubServer, api: HfApi) -> None:
    hub_server.closed.add("stranger")
    with pytest.raises(HfHubHTTPError, match="403"):
        api.create_repo("stranger/net")


def test_whoami(hub_server: HubServer, api: HfApi) -> None:
    assert api.whoami()["name"] == "alice"
    assert api.whoami(token="hf_read_secret")["auth"]["accessToken"]["role"] == "read"
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        api.whoami(token="hf_unknown")


def test_card_check(hub_server: HubServer, api: HfApi) -> None:
    ModelCard("---\nlicense: mit\ntags:\n- spiking\n---\n# Net\n").validate()
    with pytest.raises(ValueError, match="license"):
        ModelCard("---\nlicense: mine\n---\n# Net\n").validate()
    before = hub_server.add(REPO, {})
    for card in (b"---\nlicense mit\n---\n", b"---\nlicense: mit\n# Net\n"):
        with pytest.raises(ValueError, match="Invalid metadata"):
            push(api, {"README.md": card})
    assert hub_server.head(REPO) == before
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        push(api, {"README.md": b"# Net\n"})


def test_card_push(hub_server: HubServer, api: HfApi) -> None:
    hub_server.add(REPO, {})
    ModelCard("---\nlicense: mit\n---\n# Net\n").push_to_hub(REPO, token="hf_write_secret")
    assert ModelCard.load(REPO).data.license == "mit"


def test_missing_things(hub_server: HubServer) -> None:
    with pytest.raises(RepositoryNotFoundError):
        download()
    commit = hub_server.add(REPO, {"config.json": TEXT})
    with pytest.raises(RemoteEntryNotFoundError) as caught:
        download()
    assert caught.value.response.headers["X-Repo-Commit"] == commit
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(REPO, "config.json", revision="nowhere")


def test_dataset_files(hub_server: HubServer) -> None:
    hub_server.add("someone/images", {"plain/test.parquet": b"rows"}, kind="dataset")
    path = hf_hub_download("someone/images", "plain/test.parquet", repo_type="dataset")
    assert Path(path).read_bytes() == b"rows"
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("someone/images", "plain/test.parquet")
    assert hub_server.files("someone/images") == {"plain/test.parquet": b"rows"}


def test_blobs_in_the_cache_are_named_after_their_content(hub_server: HubServer) -> None:
    hub_server.add(REPO, FILES)
    names = [Path(hf_hub_download(REPO, name)).resolve().name for name in FILES]
    oid = hashlib.sha1(b"blob %d\0" % len(TEXT) + TEXT).hexdigest()
    assert names == [oid, hashlib.sha256(WEIGHTS).hexdigest()]


def test_wrong_upload_is_refused(hub_server: HubServer, api: HfApi) -> None:
    before = hub_server.add(REPO, {})
    for fault in (Fault.wrong_bytes(), Fault.truncated(-1), Fault.longer()):
        hub_server.misbehave(fault, on="^PUT ")
        with pytest.raises(RuntimeError, match="Error while uploading"):
            push(api)
    assert hub_server.head(REPO) == before
    push(api)
    assert hub_server.files(REPO) == FILES
