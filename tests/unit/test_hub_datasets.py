"""Files of datasets from a Hub: verified, resumed, and never spoilt for good by one bad transfer."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hub_server import Fault, HubServer
from huggingface_hub import hf_hub_download

from tdsnn import hub
from tdsnn.errors import IntegrityError, MissingError, Unreachable

REPO, NAME = "someone/images", "plain/test.parquet"
ROWS = hashlib.shake_128(b"rows").digest(50_000)
SHA256 = hashlib.sha256(ROWS).hexdigest()

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tdsnn.hub.download.PAUSE_SECONDS", 0.0)


def fetch() -> Path:
    (path,) = hub.fetch_dataset_files(REPO, [NAME])
    return path


def files_asked(server: HubServer) -> int:
    return sum(request.startswith("GET") and "/resolve/" in request for request in server.requests)


def test_fetched_once_and_without_a_network_the_same(
    hub_server: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.add(REPO, {NAME: ROWS, "plain/train.parquet": b"more"}, kind="dataset")
    assert not hub.has_dataset_file(REPO, NAME)
    seen: list[tuple[int, int]] = []
    (path,) = hub.fetch_dataset_files(
        REPO, [NAME], progress=lambda done, total, what="": seen.append((done, total))
    )
    assert path == cache / "hub" / "datasets" / "someone--images" / SHA256 / NAME
    assert path.read_bytes() == ROWS
    assert seen[-1] == (len(ROWS), len(ROWS))
    assert hub.has_dataset_file(REPO, NAME)
    assert fetch() == path
    assert files_asked(hub_server) == 1
    hub_server.stop()
    assert fetch() == path
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
    assert fetch() == path
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE is set"):
        hub.fetch_dataset_files(REPO, ["plain/train.parquet"])
    path.write_bytes(ROWS[:-1] + b"x")
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE is set"):
        fetch()


def test_many_files_are_looked_up_once_and_not_read_again(hub_server: HubServer, cache: Path) -> None:
    other = "plain/train.parquet"
    hub_server.add(REPO, {NAME: ROWS, other: b"more"}, kind="dataset")
    paths = hub.fetch_dataset_files(REPO, [NAME, other], by_size=True)
    assert [path.read_bytes() for path in paths] == [ROWS, b"more"]
    assert sum("/api/datasets/" in request for request in hub_server.requests) == 1
    paths[0].write_bytes(b"x" * len(ROWS))
    assert hub.fetch_dataset_files(REPO, [NAME, other], by_size=True) == paths
    assert files_asked(hub_server) == 2
    paths[0].write_bytes(b"cut off")
    assert hub.fetch_dataset_files(REPO, [NAME, other], by_size=True)[0].read_bytes() == ROWS
    assert hub.dataset_digests(REPO)[NAME] == SHA256
    hub_server.stop()
    assert hub.fetch_dataset_files(REPO, [NAME, other], by_size=True) == paths


@pytest.mark.parametrize("fault", [Fault.wrong_bytes(), Fault.longer()], ids=lambda fault: fault.kind)
def test_one_bad_transfer_does_not_spoil_the_next(hub_server: HubServer, fault: Fault) -> None:
    hub_server.add(REPO, {NAME: ROWS}, kind="dataset")
    hub_server.misbehave(fault, on="^GET .*/resolve/")
    with pytest.raises(IntegrityError, match=f"expected {len(ROWS)} bytes with sha256 {SHA256}"):
        fetch()
    assert not hub.has_dataset_file(REPO, NAME)
    assert fetch().read_bytes() == ROWS


def test_a_cut_transfer_goes_on(hub_server: HubServer) -> None:
    hub_server.add(REPO, {NAME: ROWS}, kind="dataset")
    hub_server.misbehave(Fault.cut(20_000), on="^GET .*/resolve/")
    assert fetch().read_bytes() == ROWS
    assert hub_server.ranges()[-1].startswith("bytes=")


def test_an_altered_file_is_put_aside_and_fetched_anew(hub_server: HubServer) -> None:
    hub_server.add(REPO, {NAME: ROWS}, kind="dataset")
    path = fetch()
    path.write_bytes(b"rubbish")
    assert fetch().read_bytes() == ROWS
    assert path.with_name(f"{path.name}.corrupt").read_bytes() == b"rubbish"


def test_a_new_revision_is_seen(hub_server: HubServer) -> None:
    hub_server.add(REPO, {NAME: b"old"}, kind="dataset")
    old = fetch()
    hub_server.add(REPO, {NAME: ROWS}, kind="dataset")
    assert fetch().read_bytes() == ROWS
    assert old.read_bytes() == b"old"
    hub_server.stop()
    assert fetch().read_bytes() == ROWS, "the latest"


def test_what_the_client_has_is_used_if_it_is_right(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.add(REPO, {NAME: ROWS}, kind="dataset")
    theirs = Path(hf_hub_download(REPO, NAME, repo_type="dataset"))
    assert hub.has_dataset_file(REPO, NAME)
    assert fetch() == theirs
    assert files_asked(hub_server) == 1
    theirs.resolve().write_bytes(b"rubbish")
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
        with pytest.raises(Unreachable):
            fetch()
    assert fetch() != theirs
    assert fetch().read_bytes() == ROWS
    assert theirs.read_bytes() == b"rubbish", "it is not ours to mend"


def test_what_the_client_has_serves_without_a_network(hub_server: HubServer) -> None:
    hub_server.add(REPO, {NAME: ROWS}, kind="dataset")
    theirs = Path(hf_hub_download(REPO, NAME, repo_type="dataset"))
    hub_server.stop()
    assert fetch() == theirs


def test_names_that_are_on_no_hub(hub_server: HubServer) -> None:
    hub_server.add(REPO, {NAME: ROWS}, kind="dataset")
    with pytest.raises(MissingError, match="cannot be on a Hub"):
        hub.fetch_dataset_files("a/b/c/d", [NAME])
    with pytest.raises(MissingError, match=r"'x\.parquet' of dataset someone/images: .* has no such file"):
        hub.fetch_dataset_files(REPO, ["x.parquet"])
    with pytest.raises(MissingError, match=r"Dataset someone/else at 'main': .* has no such repository"):
        hub.fetch_dataset_files("someone/else", [NAME])
