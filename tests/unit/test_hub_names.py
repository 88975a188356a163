"""Names and sizes that a server or a cache states: none leads out of the folder or spoils what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hub_server import HubServer

from tdsnn import hub
from tdsnn.errors import IntegrityError, TdsnnError
from tdsnn.files import sha256_of

REPO = "someone/net"
FILES = {"config.json": b'{"a": 1}', "model.safetensors": bytes(range(256)) * 20}

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tdsnn.hub.download.PAUSE_SECONDS", 0.0)


def snapshot(root: Path) -> hub.Snapshot:
    reference = hub.Reference(repo=REPO)
    return hub.take_snapshot(reference, root, choose=lambda repo, listed: list(listed.values()))


@pytest.mark.parametrize(
    "path", ["../evil.txt", "/tmp/evil.txt", "a/../../evil.txt", "a\\evil", "a\x1b[2J", ""]
)
def test_an_index_that_leads_out_of_its_folder_is_not_believed(
    hub_server: HubServer, tmp_path: Path, path: str
) -> None:
    hub_server.add(REPO, FILES)
    folder = snapshot(tmp_path).folder
    evil = tmp_path / "evil.txt"
    evil.write_bytes(b"evil")
    index = json.loads((folder / "files.json").read_text())
    index.append({"path": path, "size": 4, "sha256": sha256_of(evil)})
    (folder / "files.json").write_text(json.dumps(index))
    assert {record.path for record in snapshot(tmp_path).files} == set(FILES)
    assert {record["path"] for record in json.loads((folder / "files.json").read_text())} == set(FILES)


@pytest.mark.parametrize("size", [3, 5000])
def test_a_size_that_is_wrong_spoils_no_later_call(hub_server: HubServer, tmp_path: Path, size: int) -> None:
    """The Hub states git's digest of a small file, and its size, of which only the digest is certain."""
    hub_server.add(REPO, FILES)

    def lie(document: dict[str, list[dict[str, object]]]) -> None:
        next(file for file in document["siblings"] if file["rfilename"] == "config.json")["size"] = size

    hub_server.spoil_info = lie  # type: ignore[assignment]
    for _ in range(2):
        found = snapshot(tmp_path)
        (config,) = [record for record in found.files if record.path == "config.json"]
        assert config.size == len(FILES["config.json"]) == (found.folder / "config.json").stat().st_size
        hub_server.spoil_info = None
    assert not found.fetched


def test_an_index_of_other_content_spoils_one_call_only(hub_server: HubServer, tmp_path: Path) -> None:
    hub_server.add(REPO, FILES)
    folder = snapshot(tmp_path).folder
    index = json.loads((folder / "files.json").read_text())
    index[0]["sha256"] = "0" * 64
    (folder / "files.json").write_text(json.dumps(index))
    with pytest.raises(IntegrityError):
        snapshot(tmp_path)
    assert (snapshot(tmp_path).folder / "config.json").read_bytes() == FILES["config.json"]


@pytest.mark.parametrize("there", [True, False])
def test_a_partial_file_that_is_a_symlink_is_not_written_through(
    hub_server: HubServer, tmp_path: Path, there: bool
) -> None:
    commit = hub_server.add(REPO, FILES)
    file = hub.look_up(hub.Reference(repo=REPO)).files["model.safetensors"]
    target, victim = tmp_path / "to" / file.path, tmp_path / "victim"
    if there:
        victim.write_bytes(b"precious")
    target.parent.mkdir()
    part = target.with_name(f".{target.name}.{file.key[:16]}.part")
    part.symlink_to(victim)
    hub.fetch_file(REPO, file, commit=commit, target=target)
    assert target.read_bytes() == FILES[file.path]
    assert not target.is_symlink()
    assert victim.exists() == there
    assert not there or victim.read_bytes() == b"precious"


def test_a_symlink_that_appears_meanwhile_is_refused(
    hub_server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub_server.add(REPO, FILES)
    file = hub.look_up(hub.Reference(repo=REPO)).files["model.safetensors"]
    target, victim = tmp_path / file.path, tmp_path / "victim"
    victim.write_bytes(b"precious")
    part = target.with_name(f".{target.name}.{file.key[:16]}.part")

    def swap(part_: Path, needed: int) -> None:
        part.unlink()
        part.symlink_to(victim)

    monkeypatch.setattr("tdsnn.hub.download._require_space", swap)
    with pytest.raises(TdsnnError, match="could not be written"):
        hub.fetch_file(REPO, file, commit=commit, target=target)
    assert victim.read_bytes() == b"precious"
