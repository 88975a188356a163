"""``publish`` and ``download`` against a Hub on this machine, with a zoo of one tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import run
from hub_server import Fault, HubServer
from msgspec.structs import replace
from tiny import MANIFEST, NAME, measured, release_entry

from tdsnn.manifest import load_release, write_release
from tdsnn.schema import Release

TOKEN, READ_TOKEN = "hf_write_secret", "hf_read_secret"
REPO = "alice/tiny"


@pytest.fixture
def entry(
    project: Path,
    cache_with_data: Path,
    hub_server: HubServer,
    no_waiting: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> Release:
    """A released entry with its card, and somebody who may publish it."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return release_entry(project, monkeypatch)


def no_secret(captured: pytest.CaptureResult[str]) -> None:
    assert TOKEN not in captured.out + captured.err
    assert READ_TOKEN not in captured.out + captured.err
    assert "Traceback" not in captured.err


def test_publish_then_download_elsewhere(
    entry: Release,
    hub_server: HubServer,
    project: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run("publish", "tiny", "--repo", REPO, "--tag", "v1", "--json") == 0
    captured = capsys.readouterr()
    no_secret(captured)
    document = json.loads(captured.out)
    assert document["commit"] == hub_server.head(REPO)
    assert hub_server.tags(REPO) == {"v1": document["commit"]}
    written = load_release("tiny")
    assert written is not None
    assert (written.hub_repo, written.hub_commit) == (REPO, document["commit"])
    sent = hub_server.files(REPO)
    assert {record.path for record in written.files} == {"README.md", "config.json", "model.safetensors"}
    assert sent.keys() >= {record.path for record in written.files}

    # On another machine: the release is known, the checkpoint is not.
    folder = project / "zoo" / "checkpoints" / NAME
    here = {path.name: path.read_bytes() for path in folder.iterdir()}
    folder.rename(tmp_path / "gone")
    before = measured(str(tmp_path / "gone"))
    assert run("download", "tiny", "--to", str(tmp_path / "copy")) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == str(tmp_path / "copy")
    assert "fetched from the Hub and verified" in captured.err
    assert {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()} == here
    hub_server.stop()
    assert measured("tiny") == before, "from the cache, without a Hub"
    assert run("download", "tiny") == 0
    assert "in the cache already" in capsys.readouterr().err


def test_again_makes_no_commit(
    entry: Release, hub_server: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("publish", "tiny", "--repo", REPO) == 0
    first, commits = load_release("tiny"), hub_server.commits(REPO)
    capsys.readouterr()
    assert run("publish", "tiny", "--repo", REPO) == 0
    assert "no commit was made" in capsys.readouterr().err
    assert hub_server.commits(REPO) == commits
    assert load_release("tiny") == first


def test_dry_run_shows_and_changes_nothing(
    entry: Release, hub_server: HubServer, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub_server.add(REPO, {"README.md": b"---\nlicense: mit\n---\n# old\n", "extra.txt": b"theirs"})
    head = hub_server.head(REPO)
    release_file = (project / "zoo" / "releases" / f"{NAME}.json").read_bytes()
    assert run("publish", "tiny", "--repo", REPO, "--dry-run") == 0
    captured = capsys.readouterr()
    assert hub_server.head(REPO) == head
    assert (project / "zoo" / "releases" / f"{NAME}.json").read_bytes() == release_file
    for record in entry.files:
        assert f"{record.size:,} bytes  sha256 {record.sha256}" in captured.out
    for text in ("new        config.json", "changed    README.md", "not ours   extra.txt", "-license: mit"):
        assert text in captured.out
    assert "+license: apache-2.0" in captured.out
    assert "nothing was sent" in captured.err
    assert "passed: same batch twice" in captured.out + captured.err


def test_gates_come_first(entry: Release, hub_server: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = dict(entry.metrics["clean_accuracy"])
    write_release(
        replace(
            entry, metrics={**entry.metrics, "clean_accuracy": accuracy | {"value": accuracy["value"] + 20}}
        )
    )
    assert run("publish", "tiny", "--repo", REPO) == 5
    assert "stored accuracy" in capsys.readouterr().err
    assert not any(request.startswith("POST") for request in hub_server.requests)


def test_weights_that_changed_are_not_published(
    entry: Release, hub_server: HubServer, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = project / "zoo" / "checkpoints" / NAME / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert run("publish", "tiny", "--repo", REPO) == 3
    assert hub_server.requests == []


def test_all_goes_on_after_a_failure(
    entry: Release, hub_server: HubServer, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "zoo" / "models" / "other.digits.toml").write_text(MANIFEST)
    write_release(replace(entry, name="other.digits"))
    assert run("publish", "--all", "--repo", "alice") == 1
    captured = capsys.readouterr()
    assert "1 of 2 entries were not published: other.digits" in captured.err
    assert "neither embedded, nor cached, nor on a Hub" in captured.err
    assert load_release("tiny") != entry
    assert hub_server.head(f"alice/{NAME}")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "Name one entry or run, or --all"),
        (("tiny", "--all", "--repo", "alice"), 2, "Name one entry or run, or --all"),
        (("tiny",), 2, "add --repo"),
        (("tiny", "--private"), 2, "Add --repo"),
        (("tiny", "--repo", "../x"), 2, "cannot be the name of a repository"),
        (("tiny", "--repo", "a/b/c"), 2, "cannot be the name of a repository"),
        (("tiny", "--repo", REPO, "--revision", "a..b"), 2, "cannot be a revision"),
        (("tinny", "--repo", REPO), 2, "Did you mean tiny"),
        (("no/such/run", "--repo", REPO), 2, "no finished run"),
    ],
)
def test_bad_requests(
    entry: Release,
    hub_server: HubServer,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    assert run("publish", *arguments) == code
    captured = capsys.readouterr()
    assert message in captured.err
    no_secret(captured)
    assert not any(request.startswith("POST") for request in hub_server.requests)


PUBLISHING = {
    "create": "POST /api/repos/create",
    "info": "GET /api/models",
    "preupload": "POST .*/preupload/",
    "commit": "POST .*/commit/",
}
FAULTS = [Fault.status(code, echo_token=True) for code in (401, 403, 404, 409, 412, 429, 500)]
FAULTS += [Fault.drop(), Fault.stall(0, 30.0)]


@pytest.mark.parametrize("call", PUBLISHING)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.kind} {fault.code or ''}")
def test_a_failing_hub_in_one_sentence(
    entry: Release,
    hub_server: HubServer,
    project: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    fault: Fault,
) -> None:
    hub_server.misbehave(fault, on=PUBLISHING[call], times=None)
    before = (project / "zoo" / "releases" / f"{NAME}.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("tdsnn.hub._bounds.ANSWER_SECONDS", 0.05)
        code = run("publish", "tiny", "--repo", REPO)
    captured = capsys.readouterr()
    no_secret(captured)
    if code:
        assert code == 1
        assert captured.err.count("error: ") == 1
        assert (project / "zoo" / "releases" / f"{NAME}.json").read_bytes() == before
    hub_server.behave()
    assert run("publish", "tiny", "--repo", REPO) == 0


DOWNLOADS = [
    (Fault.wrong_bytes(), 3, "is altered"),
    (Fault.longer(), 3, "is too long"),
    (Fault.status(401, echo_token=True), 4, "has no such repository, or shows it only"),
    (Fault.status(403, echo_token=True), 4, "status 403"),
    (Fault.status(404), 4, "status 404"),
    (Fault.status(409), 4, "status 409"),
    (Fault.status(412), 4, "status 412"),
    (Fault.status(429, retry_after=3600), 4, "asked too often"),
    (Fault.status(500), 4, "status 500"),
    (Fault.drop(), 4, "broke off"),
    (Fault.stall(0, 30.0), 4, "stopped answering"),
]


@pytest.mark.parametrize(("fault", "code", "message"), DOWNLOADS, ids=lambda value: str(value)[:40])
def test_a_failing_download_in_one_sentence(
    entry: Release,
    hub_server: HubServer,
    project: Path,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    code: int,
    message: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    assert run("publish", "tiny", "--repo", REPO) == 0
    (project / "zoo" / "checkpoints" / NAME).rename(tmp_path / "gone")
    capsys.readouterr()
    hub_server.misbehave(fault, on="^GET .*/resolve/.*safetensors", times=None)
    assert run("download", "tiny") == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    no_secret(captured)
    assert not list(cache.rglob("model.safetensors"))
    hub_server.behave()
    assert run("download", "tiny") == 0


def test_stopped_downloads_say_how_to_go_on(
    entry: Release,
    hub_server: HubServer,
    project: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run("publish", "tiny", "--repo", REPO) == 0
    (project / "zoo" / "checkpoints" / NAME).rename(tmp_path / "gone")

    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tdsnn.hub.snapshot.fetch_file", stop)
        assert run("download", "tiny") == 130
    assert "Run the same command again" in capsys.readouterr().err
    assert run("download", "tiny") == 0
