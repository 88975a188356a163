"""``save_pretrained``, ``from_pretrained`` and ``push_to_hub``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hub_server import HubServer
from tiny import NAME, Tiny, install, tiny

from tdsnn import hub, zoo
from tdsnn.errors import TdsnnError, UsageError
from tdsnn.models._base import Model

REPO = "alice/tiny"


class Other(Tiny):
    """Of another class."""


@pytest.fixture
def embedded(project: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an embedded checkpoint, the only one of the zoo."""
    return install(project, monkeypatch)


def same(one: Model, other: Model) -> bool:
    x = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    return torch.equal(one.eval()(x), other.eval()(x)) and torch.equal(
        one.sheets["conv"].positions, other.sheets["conv"].positions
    )


def test_a_folder_and_back(embedded: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must name the dataset"):
        tiny().save_pretrained(tmp_path / "mine")
    tiny().save_pretrained(tmp_path / "mine", dataset="digits")
    loaded = Tiny.from_pretrained(tmp_path / "mine")
    assert same(loaded, tiny())
    assert not loaded.training
    loaded.save_pretrained(str(tmp_path / "again"))
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("mine", "again")
    ]
    assert files[0]["model.safetensors"] == files[1]["model.safetensors"]
    assert json.loads(files[1]["config.json"])["dataset"] == "digits"


def test_default_type_and_device_do_not_matter(embedded: Path) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            loaded = Model.from_pretrained("tiny")
    finally:
        torch.set_default_dtype(torch.float32)
    assert loaded.conv.weight.dtype == torch.float32
    assert same(loaded, tiny())


def test_zoo_entries_and_any_class(embedded: Path) -> None:
    assert isinstance(Model.from_pretrained("tiny"), Tiny)
    with pytest.raises(UsageError, match="is a Tiny, not a Other"):
        Other.from_pretrained(NAME)
    with pytest.raises(UsageError, match="no checkpoint folder"):
        Tiny.from_pretrained(Path("nowhere"))


def test_push_and_from_anywhere(
    embedded: Path, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = zoo.load("tiny")
    with pytest.raises(TdsnnError, match="needs a Hub token"):
        model.push_to_hub(REPO)
    monkeypatch.setenv("HF_TOKEN", "hf_write_secret")
    first = model.push_to_hub(REPO, private=True)
    assert hub_server.head(REPO) == first.commit
    assert hub_server.is_private(REPO)
    assert b"hf:alice/tiny" in hub_server.files(REPO)["README.md"]
    assert not model.push_to_hub(REPO).new
    assert same(Tiny.from_pretrained(REPO), model)
    hub_server.add(REPO, {"README.md": b"# by hand\n"})
    model.conv.weight.data += 1
    assert model.push_to_hub(REPO).new
    assert hub_server.files(REPO)["README.md"] == b"# by hand\n", "a card that is there stays"
    assert same(Tiny.from_pretrained(REPO), model)
    assert not same(Tiny.from_pretrained(REPO, revision=first.commit), model)
    assert same(zoo.load(f"hf:{REPO}"), model)
    with pytest.raises(UsageError):
        hub.Reference(repo="no", revision="x")
