"""Repositories by name, zoo folders of one's own, and what the cache keeps, through the real Hub client."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import HubServer
from tiny import MANIFEST, NAME, Tiny, edited, install, release, tiny

from tdsnn import hub, naming, store, zoo
from tdsnn.benchmark.names import with_twins
from tdsnn.errors import IntegrityError, MissingError, TdsnnError, UsageError
from tdsnn.files import sha256_of
from tdsnn.manifest import list_models, require_writable, resolve
from tdsnn.weights import CONFIG_FILE, WEIGHTS_FILE

REPO = "some-lab/tiny"
_require_space = "tdsnn.hub.download.shutil.disk_usage"


@pytest.fixture
def embedded(project: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an embedded checkpoint, the only one of the zoo."""
    return install(project, monkeypatch)


@pytest.fixture
def files(embedded: Path) -> dict[str, bytes]:
    """Files of a repository that nobody here has heard of."""
    return {path.name: path.read_bytes() for path in embedded.iterdir()} | {"README.md": b"# tiny\n"}


def test_a_repository_by_name_then_without_network(
    hub_server: HubServer, files: dict[str, bytes], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub_server.add(REPO, files | {"train.py": b"import os", "big.bin": b"x" * 1000})
    location = store.locate(f"hf:{REPO}")
    assert (location.name, location.source) == (f"hf:{REPO}@{commit}", "hub")
    fetched = {path.name for path in location.folder.iterdir() if path.name != ".lock"}
    assert fetched == {*files, "files.json"}, "what loading does not need is not fetched"
    assert isinstance(zoo.load(f"hf:{REPO}@{commit}"), Tiny)
    asked = len(hub_server.requests)
    assert store.locate(f"hf:{REPO}@{commit}").source == "cache"
    assert len(hub_server.requests) == asked, "a commit that is here needs no request"
    hub_server.stop()
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
    assert store.locate(f"hf:{REPO}").folder == location.folder, "a branch means what it meant last time"
    with pytest.raises(MissingError, match="HF_HUB_OFFLINE is set"):
        store.locate(f"hf:{REPO}@v1")


def test_a_name_means_the_same_everywhere(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("tiny", "mine", "here/ckpt"):
        (tmp_path / folder).mkdir(parents=True)
    remote = hub.Reference(repo="some-lab/tiny", revision="v1")
    meanings = {
        "tiny": NAME,
        NAME: NAME,
        f"{NAME}-s3": f"{NAME}-s3",
        "./tiny": Path("tiny"),
        Path("tiny"): Path("tiny"),
        Path("nowhere"): Path("nowhere"),
        "mine/": Path("mine"),
        "here/ckpt": Path("here/ckpt"),
        ".": Path(),
        "./a/b": Path("a/b"),
        "/nowhere/x": Path("/nowhere/x"),
        "some-lab/tiny@v1": remote,
        "hf:some-lab/tiny@v1": remote,
        "hf:here/ckpt": hub.Reference(repo="here/ckpt"),
    }
    assert {name: naming.parse(name) for name in meanings} == meanings
    with pytest.raises(UsageError, match="no model called 'mine'") as caught:
        naming.parse("mine")
    assert caught.value.hint == "The folder of that name: ./mine"
    for name in ("./nowhere", "x" * 300, "a\0b", ""):
        with pytest.raises(UsageError):
            zoo.load(name)


def test_a_zoo_name_is_no_folder(embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of an entry's name in the working directory is not taken for the entry, nor by a benchmark."""
    monkeypatch.chdir(tmp_path)
    other = tiny()
    other.conv.weight.data += 1
    other.save_pretrained("./tiny", dataset="digits")
    entry = zoo.load(NAME).conv.weight
    assert torch.equal(Tiny.from_pretrained("tiny").conv.weight, entry)
    assert torch.equal(zoo.load("tiny").conv.weight, entry)
    assert list(with_twins(["tiny"])) == [NAME]
    assert torch.equal(Tiny.from_pretrained("./tiny").conv.weight, other.conv.weight)
    with pytest.raises(UsageError, match="has no revisions"):
        Tiny.from_pretrained("./tiny", revision="v1")


def test_weights_are_hashed_once(
    embedded: Path,
    hub_server: HubServer,
    files: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit = hub_server.add(REPO, files)
    copy = Path(shutil.copytree(embedded, tmp_path / "copy"))
    reference = f"hf:{REPO}@{commit}"
    store.locate(reference)
    hashed: list[Path] = []

    def hashing(path: Path) -> str:
        hashed.append(path)
        return sha256_of(path)

    for module in ("files", "store", "hub.snapshot"):
        monkeypatch.setattr(f"tdsnn.{module}.sha256_of", hashing)
    for name in ("tiny", copy, embedded, reference):
        hashed.clear()
        opened = zoo.open_model(name)
        assert [path.name for path in hashed].count(WEIGHTS_FILE) == 1, name
        assert opened.weights_sha256 == sha256_of(embedded / WEIGHTS_FILE)
    hashed.clear()
    with_twins([str(copy)])
    assert [path.name for path in hashed].count(WEIGHTS_FILE) == 1


def test_what_outgrew_the_project_is_loaded_from_the_cache(embedded: Path) -> None:
    """Beside the smaller files that it replaced."""
    folder = tiny()
    folder.sheets = {}
    larger = embedded.with_name("larger")
    folder.save_pretrained(larger, dataset="digits")
    listed = release(larger)
    before = {path.name: path.read_bytes() for path in embedded.iterdir()}
    shutil.copytree(larger, store.cached(listed))
    assert store.available("tiny") == "cache"
    location = store.locate("tiny")
    assert (location.source, location.folder) == ("cache", store.cached(listed))
    assert zoo.load("tiny").sheets == {}
    assert {path.name: path.read_bytes() for path in embedded.iterdir()} == before
    (store.cached(listed) / WEIGHTS_FILE).unlink()
    with pytest.raises(IntegrityError):
        zoo.load("tiny")


def test_a_branch_that_moved(hub_server: HubServer, files: dict[str, bytes]) -> None:
    old = hub_server.add(REPO, files)
    first = store.locate(f"hf:{REPO}")
    new = hub_server.add(REPO, {"README.md": b"# better\n"})
    second = store.locate(f"hf:{REPO}")
    assert (first.name, second.name) == (f"hf:{REPO}@{old}", f"hf:{REPO}@{new}")
    assert (second.folder / "README.md").read_bytes() == b"# better\n"
    assert (first.folder / "README.md").read_bytes() == b"# tiny\n"


@pytest.mark.parametrize(
    "name",
    [
        "hf:a",
        "hf:a/b/c",
        "hf:../b",
        "hf:a/..",
        "hf:a/b@../../x",
        "hf:a/b@",
        "hf:/b",
        "hf:a b/c",
        "hf:a/b@x y",
    ],
)
def test_names_that_no_hub_can_have(name: str, embedded: Path) -> None:
    with pytest.raises(UsageError, match="cannot be"):
        store.locate(name)


def test_download_takes_repositories_without_prefix(
    hub_server: HubServer, files: dict[str, bytes], tmp_path: Path
) -> None:
    first = hub_server.add(REPO, files)
    hub_server.add(REPO, {"README.md": b"# better\n"}, revision="next")
    location = store.download(f"{REPO}@next", to=tmp_path / "here")
    assert location.folder == tmp_path / "here"
    assert (tmp_path / "here" / "README.md").read_bytes() == b"# better\n"
    assert store.download(REPO, revision=first).name == f"hf:{REPO}@{first}"
    with pytest.raises(UsageError, match="is not the file of"):
        store.download(f"{REPO}@{first}", to=tmp_path / "here")
    store.download(f"{REPO}@{first}", to=tmp_path / "here", force=True)
    assert (tmp_path / "here" / "README.md").read_bytes() == b"# tiny\n"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({WEIGHTS_FILE: None}, UsageError, "has no model.safetensors"),
        ({WEIGHTS_FILE: None, "pytorch_model.bin": b"\x80"}, UsageError, "could run code when it is read"),
        ({CONFIG_FILE: None}, UsageError, "has no config.json"),
        ({CONFIG_FILE: b"{}"}, IntegrityError, "lacks the key"),
        ({CONFIG_FILE: b"\xff\xfe"}, IntegrityError, "is not valid JSON"),
        ({CONFIG_FILE: ("extra", 1)}, IntegrityError, "unknown key 'extra'"),
        ({CONFIG_FILE: ("architecture", "huge")}, IntegrityError, "architecture"),
        ({CONFIG_FILE: ("arguments", {"hidden": 10**12})}, IntegrityError, "needs|does not fit"),
        (
            {CONFIG_FILE: ("arguments", {"hidden": "3"})},
            IntegrityError,
            "a whole number for 'arguments.hidden', not '3'",
        ),
        ({CONFIG_FILE: ("arguments", {"hidden": 4})}, IntegrityError, "'conv.weight' .* needs"),
        ({WEIGHTS_FILE: b"\x80\x04pickle"}, IntegrityError, "truncated"),
    ],
)
def test_repositories_that_are_no_checkpoint(
    hub_server: HubServer,
    files: dict[str, bytes],
    change: dict[str, object],
    error: type[TdsnnError],
    message: str,
) -> None:
    for name, new in change.items():
        if new is None:
            del files[name]
        elif isinstance(new, bytes):
            files[name] = new
        else:
            assert isinstance(new, tuple)
            files[name] = edited(files[name], **{new[0]: new[1]}).encode()
    hub_server.add(REPO, files)
    with pytest.raises(error, match=message) as caught:
        zoo.load(f"hf:{REPO}")
    assert caught.value.message.endswith((".", "?"))


def lying_header(content: bytes) -> bytes:
    """A safetensors file whose header promises more bytes than there are."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    last = max(
        (key for key in header if key != "__metadata__"), key=lambda key: header[key]["data_offsets"][1]
    )
    header[last]["data_offsets"][1] += 400
    header[last]["shape"] = [value * 2 for value in header[last]["shape"]]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


@pytest.mark.parametrize(
    "damage", [lying_header, lambda content: (1 << 62).to_bytes(8, "little") + content[8:]]
)
def test_a_safetensors_header_that_lies(embedded: Path, damage: Callable[[bytes], bytes]) -> None:
    weights = damage((embedded / WEIGHTS_FILE).read_bytes())
    (embedded / WEIGHTS_FILE).write_bytes(weights)
    config, pinned = (embedded / CONFIG_FILE).read_text(), release(embedded).files
    file = next(file for file in pinned if file.path == WEIGHTS_FILE)
    (embedded / CONFIG_FILE).write_text(edited(config, weights={"size": file.size, "sha256": file.sha256}))
    release(embedded)
    with pytest.raises(IntegrityError, match="is not a safetensors file"):
        zoo.load("tiny")


def test_a_revision_of_an_entry(
    hub_server: HubServer, embedded: Path, files: dict[str, bytes], tmp_path: Path
) -> None:
    commit = hub_server.add(REPO, files)
    with pytest.raises(UsageError, match="is on no Hub"):
        store.download("tiny", revision="main")
    release(embedded, hub_repo=REPO, hub_commit=commit)
    newer = hub_server.add(REPO, {"README.md": b"# better\n"})
    assert store.download("tiny").source == "embedded"
    assert store.download("tiny", revision="main").name == f"hf:{REPO}@{newer}"


def test_an_altered_snapshot_is_repaired(
    hub_server: HubServer, files: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    hub_server.add(REPO, files)
    folder = store.locate(f"hf:{REPO}").folder
    for name in ("README.md", WEIGHTS_FILE):
        (folder / name).write_bytes(b"rubbish")
        assert store.locate(f"hf:{REPO}").source == "hub"
        assert (folder / name).read_bytes() == files[name]
        assert f"{name} differs from its release" in caplog.text
    (folder / "files.json").write_text("{")
    assert isinstance(zoo.load(f"hf:{REPO}"), Tiny)
    assert len(json.loads((folder / "files.json").read_text())) == len(files), "a damaged index is made anew"


def test_nothing_is_put_aside_without_a_network(hub_server: HubServer, files: dict[str, bytes]) -> None:
    commit = hub_server.add(REPO, files)
    folder = store.locate(f"hf:{REPO}@{commit}").folder
    (folder / "README.md").write_bytes(b"rubbish")
    hub_server.stop()
    with pytest.raises(MissingError, match="cannot be reached"):
        store.locate(f"hf:{REPO}@{commit}")
    assert (folder / "README.md").read_bytes() == b"rubbish"


def test_force_fetches_again(hub_server: HubServer, files: dict[str, bytes]) -> None:
    hub_server.add(REPO, files)
    store.download(REPO)
    before = len(hub_server.requests)
    assert store.download(REPO, force=True).source == "hub"
    assert sum("/resolve/" in request for request in hub_server.requests[before:]) == len(files)


def test_a_zoo_folder_of_ones_own(
    project: Path, embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    (mine / "models").mkdir(parents=True)
    (mine / "models" / "tiny.private.toml").write_text(MANIFEST.replace("default = true", ""))
    monkeypatch.setenv("TDSNN_ZOO", str(mine))
    assert list_models() == (NAME, "tiny.private")
    assert resolve("tiny").name == NAME
    assert store.available("tiny.private") is None
    folder = Path(shutil.copytree(embedded, mine / "checkpoints" / "tiny.private"))
    zoo.save(tiny(), folder, name="tiny.private", dataset="digits")
    release(folder, name="tiny.private")
    location = store.locate("tiny.private")
    assert (location.folder, location.source) == (folder, "folder")
    assert (mine / "releases" / "tiny.private.json").is_file()
    assert store.locate("tiny").source == "embedded"
    require_writable("tiny.private")
    (folder / WEIGHTS_FILE).write_bytes(b"")
    with pytest.raises(IntegrityError) as caught:
        store.locate("tiny.private")
    assert "tdsnn-zoo publish RUN_DIR" in caught.value.hint


def test_a_default_of_ones_own_redirects_no_name(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    (mine / "models").mkdir(parents=True)
    (mine / "models" / "tiny.private.toml").write_text(MANIFEST)
    monkeypatch.setenv("TDSNN_ZOO", str(mine))
    with pytest.raises(UsageError, match=f"2 default variants: .*tiny.private in {mine}") as caught:
        resolve("tiny")
    assert NAME in caught.value.hint
    assert resolve("tiny.private").name == "tiny.private"
    (mine / "models" / "tiny.private.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="cannot be read"):
        resolve("tiny.private")


def test_the_projects_own_folder_is_no_other(
    project: Path, embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "models").mkdir()
    monkeypatch.setenv("TDSNN_ZOO", str(project / "models" / ".." / "zoo"))
    assert store.available("tiny") == "embedded"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha", "/tmp/elsewhere"),
        ("sha", None),
        ("size", None),
        ("size", "4"),
        ("lfs", "../../x"),
        ("blob", 5),
    ],
)
def test_a_server_that_answers_nonsense(
    hub_server: HubServer, files: dict[str, bytes], cache: Path, field: str, value: object
) -> None:
    def spoil(document: dict[str, Any]) -> None:
        entry = next(each for each in document["siblings"] if each["rfilename"] == WEIGHTS_FILE)
        if field == "sha":
            document["sha"] = value
        elif field == "size":
            entry["size"] = value
        elif field == "lfs":
            entry["lfs"] = {"sha256": value, "size": 4, "pointerSize": 4}
        else:
            entry["blobId"], entry["lfs"] = value, None

    commit = hub_server.add(REPO, files)
    hub_server.spoil_info = spoil
    with pytest.raises(TdsnnError) as caught:
        store.locate(f"hf:{REPO}")
    assert caught.value.exit_code in (3, 4)
    assert not list(cache.rglob(WEIGHTS_FILE))
    hub_server.spoil_info = None
    assert store.locate(f"hf:{REPO}").name.endswith(commit)


def test_a_zoo_folder_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TDSNN_ZOO", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="TDSNN_ZOO names") as caught:
        list_models()
    assert "mkdir" in caught.value.hint


def test_an_installed_zoo_is_not_written(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tdsnn.paths.is_checkout", lambda: False)
    with pytest.raises(UsageError, match="belongs to the installed package") as caught:
        require_writable(NAME)
    assert "TDSNN_ZOO" in caught.value.hint


def test_a_full_disk_is_seen_before_the_first_byte(
    hub_server: HubServer, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.add(REPO, files)
    monkeypatch.setattr(_require_space, lambda path: shutil._ntuple_diskusage(10, 0, 10))
    with pytest.raises(TdsnnError, match="10 bytes free, but") as caught:
        store.locate(f"hf:{REPO}")
    assert caught.value.exit_code == 1


def test_a_cache_that_cannot_be_written(hub_server: HubServer, files: dict[str, bytes], cache: Path) -> None:
    hub_server.add(REPO, files)
    cache.write_text("a file where the folder should be")
    with pytest.raises(TdsnnError, match="could not be written"):
        store.locate(f"hf:{REPO}")


def test_private_repositories(
    hub_server: HubServer, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.add(REPO, files, private=True)
    with pytest.raises(MissingError, match="no such repository, or shows it only"):
        store.locate(f"hf:{REPO}")
    monkeypatch.setenv("HF_TOKEN", "hf_read_secret")
    assert store.locate(f"hf:{REPO}").source == "hub"
