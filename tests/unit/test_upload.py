"""Publishing files to a Hub that misbehaves: one commit or none, and no word about the token."""

from __future__ import annotations

import time
import traceback

import pytest
from hub_server import Fault, HubServer
from hub_store import Blob

from tdsnn import hub
from tdsnn.errors import IntegrityError, TdsnnError, Unreachable, UsageError

TOKEN, READ_TOKEN = "hf_write_secret", "hf_read_secret"
REPO = "alice/net"
FILES = {"config.json": b'{"a": 1}\n', "README.md": b"# net\n", "model.safetensors": bytes(range(256)) * 50}


@pytest.fixture(autouse=True)
def logged_in(hub_server: HubServer, no_waiting: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Alice, on a machine where waiting between attempts takes no time."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def publish(files: dict[str, bytes] = FILES, *, revision: str = "main", **more: object) -> hub.Published:
    reference = hub.Reference(repo=REPO, revision=revision)
    return hub.publish(reference, files, message="Publish net", **more)  # type: ignore[arg-type]  # forwarded


def test_into_an_empty_server_then_nothing_new(hub_server: HubServer) -> None:
    first = publish()
    assert (first.repo, first.new) == (REPO, True)
    assert hub_server.head(REPO) == first.commit
    assert hub_server.files(REPO).items() >= FILES.items()
    before = hub_server.commits(REPO)
    second = publish()
    assert (second.commit, second.new) == (first.commit, False)
    assert hub_server.commits(REPO) == before


def test_one_commit_with_what_changed_only(hub_server: HubServer) -> None:
    publish()
    theirs = hub_server.add(REPO, {"notes.txt": b"ours to keep"})
    third = publish(FILES | {"README.md": b"# better\n"})
    assert hub_server.commits(REPO)[:2] == [third.commit, theirs]
    assert hub_server.files(REPO)["notes.txt"] == b"ours to keep"
    assert not any("lfs/objects/batch" in request for request in hub_server.requests[-9:]), "weights not sent"


def test_compare_tells_and_changes_nothing(hub_server: HubServer) -> None:
    reference = hub.Reference(repo=REPO)
    nothing = hub.compare(reference, FILES)
    assert (nothing.head, {change.state for change in nothing.changes}) == (None, {"new"})
    assert not any(request.startswith("POST") for request in hub_server.requests)
    head = hub_server.add(REPO, {**FILES, "README.md": b"old", "other.txt": b""})
    found = hub.compare(reference, FILES | {"new.txt": b"1"})
    states = {change.path: change.state for change in found.changes}
    assert found.head == head
    assert states == {
        "README.md": "changed",
        "config.json": "unchanged",
        "model.safetensors": "unchanged",
        "new.txt": "new",
    }
    assert found.others == ("other.txt",)


def test_private(hub_server: HubServer) -> None:
    publish(private=True)
    assert hub_server.is_private(REPO)
    assert not publish(private=True).new


def test_private_is_not_promised_of_a_public_repository(hub_server: HubServer) -> None:
    hub_server.add(REPO, {"a.txt": b"a"})
    with pytest.raises(UsageError, match="exists and is public"):
        publish(private=True)
    assert hub_server.files(REPO) == {"a.txt": b"a"}


def test_a_public_repository_is_told_from_a_private_one_before_anything_is_made(
    hub_server: HubServer,
) -> None:
    reference = hub.Reference(repo=REPO)
    hub.require_publishing(reference, private=True)  # it can still be made
    hub_server.add(REPO, {"a.txt": b"a"})
    hub.require_publishing(reference)
    with pytest.raises(UsageError, match="exists and is public"):
        hub.require_publishing(reference, private=True)


def test_branch_and_tag(hub_server: HubServer) -> None:
    main = publish()
    branched = publish({"README.md": b"# next\n"}, revision="next", tag="v1")
    assert hub_server.head(REPO, "next") == branched.commit
    assert hub_server.head(REPO) == main.commit
    assert hub_server.tags(REPO) == {"v1": branched.commit}
    publish({"README.md": b"# next\n"}, revision="next", tag="v1")
    before = hub_server.commits(REPO)
    with pytest.raises(UsageError, match="exists and means another commit"):
        publish({"README.md": b"# more\n"}, tag="v1")
    with pytest.raises(UsageError, match="cannot be a revision"):
        publish({"README.md": b"# more\n"}, tag="a b/../c")
    assert hub_server.commits(REPO) == before, "refused before anything was sent"
    assert hub_server.tags(REPO) == {"v1": branched.commit}
    with pytest.raises(UsageError, match="is a commit"):
        publish(revision=main.commit)


def test_who_may(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(TdsnnError, match="needs a Hub token") as caught:
        publish()
    assert "hf auth login" in caught.value.hint
    for token, message in ((READ_TOKEN, "forbids this"), ("hf_unknown", "wants a valid token")):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(TdsnnError, match=message):
            publish()
    assert not any("/commit/" in request for request in hub_server.requests)


def test_somebody_else_was_faster(hub_server: HubServer) -> None:
    publish()
    hub_server.misbehave(Fault.status(412), on="POST .*/commit/")
    with pytest.raises(TdsnnError, match="changed in the meantime") as caught:
        publish(FILES | {"README.md": b"# better\n"})
    assert caught.value.hint == "Run the command again."


def failure() -> TdsnnError | None:
    """What publishing fails with."""
    try:
        publish()
    except TdsnnError as error:
        return error
    return None


CALLS = {
    "create": "POST /api/repos/create",
    "info": r"GET /api/models/alice/net",
    "preupload": "POST .*/preupload/",
    "batch": "POST .*/objects/batch",
    "upload": "^PUT ",
    "commit": "POST .*/commit/",
}
STATUSES = [Fault.status(code, echo_token=True) for code in (400, 401, 403, 404, 409, 412, 429, 500)]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "fault",
    [*STATUSES, Fault.drop(), Fault.stall(0, 30.0)],
    ids=lambda fault: f"{fault.kind} {fault.code or ''}",
)
def test_each_fault_of_each_call(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch, call: str, fault: Fault
) -> None:
    hub_server.misbehave(fault, on=CALLS[call], times=None)
    began = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr("tdsnn.hub._bounds.ANSWER_SECONDS", 0.05)
        error = failure()
    if error is not None:
        shown = "".join(traceback.format_exception(error)) + error.hint
        assert TOKEN not in shown
        assert error.message.count("\n") == 0
        assert error.exit_code == 1
        assert error.hint
    else:
        # An existing repository answers 409, and the client goes on with an existing repository.
        assert (call, fault.code) in {("create", 409), ("create", 401), ("create", 403)}
    assert time.monotonic() - began < 5
    hub_server.behave()
    assert publish().commit == hub_server.head(REPO), "the next call recovers"
    assert len(hub_server.commits(REPO)) <= 2, "the first commit of the repository and ours"


def test_an_answer_that_was_lost_after_the_work(hub_server: HubServer) -> None:
    hub_server.misbehave(Fault.drop(done=True), on="POST .*/commit/")
    with pytest.raises(TdsnnError, match="broke off"):
        publish()
    again = publish()
    assert not again.new
    assert again.commit == hub_server.head(REPO)


def test_upload_that_arrives_damaged(hub_server: HubServer) -> None:
    hub_server.misbehave(Fault.wrong_bytes(), on="^PUT ", times=None)
    with pytest.raises(TdsnnError):
        publish()
    assert "model.safetensors" not in hub_server.files(REPO)


def test_a_server_that_keeps_other_content(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = hub.upload._check_received

    def later(reference: hub.Reference, files: dict[str, bytes]) -> None:
        hub_server.repos["model", REPO].find("main").files["README.md"] = Blob(b"other")
        real(reference, files)

    monkeypatch.setattr(hub.upload, "_check_received", later)
    with pytest.raises(IntegrityError, match=r"has other content of 'README\.md'"):
        publish()


def test_without_network(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://user:secret@127.0.0.1:9")
    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:9 cannot be reached") as caught:
        publish()
    assert "secret" not in caught.value.message
