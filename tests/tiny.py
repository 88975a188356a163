"""A zoo of one tiny model, which knows digits by chance, for tests of finding, fetching and publishing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor, nn

from tdsnn import paths, zoo
from tdsnn.data._base import DATASETS, load_split
from tdsnn.files import digest_of, sha256_of
from tdsnn.manifest import resolve, write_release
from tdsnn.models._base import Model
from tdsnn.models._neurons import State
from tdsnn.registry import Registry
from tdsnn.report import cards
from tdsnn.schema import FileRecord, Release
from tdsnn.topography.layouts import SheetSpec
from tdsnn.topography.sheets import CorticalSheet
from tdsnn.weights import CONFIG_FILE, WEIGHTS_FILE

NAME = "tiny.digits"
MANIFEST = """
summary = "A net for tests."
default = true
twin = "tiny.digits"
[model]
architecture = "tiny"
arguments = {hidden = 3}
[data]
name = "digits"
"""


def edited(config: str | bytes, **changes: object) -> str:
    """A ``config.json`` with other values, as if it had been saved with them."""
    document = json.loads(config) | changes
    document.pop("sha256", None)
    return json.dumps(document | {"sha256": digest_of(document)})


CONV = SheetSpec("conv", 2.0, "maps")


class Tiny(Model):
    """One convolution, normalised, summed over the image."""

    def __init__(self, *, hidden: int) -> None:
        super().__init__(
            architecture="tiny",
            arguments={"hidden": hidden},
            timesteps=1,
            num_classes=hidden,
            in_channels=1,
            mean=[0.0],
            std=[1.0],
            sheet_specs=[CONV],
        )
        self.conv = nn.Conv2d(1, hidden, 1)
        self.norm = nn.BatchNorm2d(hidden)

    def step(self, x: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        return self.norm(self.conv(x)).mean((2, 3)), dict(state)


def tiny() -> Tiny:
    torch.manual_seed(0)
    model = Tiny(hidden=3)
    model.norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    model.sheets = {
        "conv": CorticalSheet.retinotopic(CONV, (3, 2, 2), first_height=2, seed=0),
    }
    return model


def release(folder: Path, *, name: str = NAME, **hub_fields: str) -> Release:
    """Pin the files of a folder."""
    records = tuple(
        FileRecord(path=path, size=(folder / path).stat().st_size, sha256=sha256_of(folder / path))
        for path in (CONFIG_FILE, WEIGHTS_FILE)
    )
    release = Release(name=name, files=records, metrics={}, provenance={}, **hub_fields)
    write_release(release)
    return release


def install(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty project the manifest and an embedded checkpoint; returns the checkpoint's folder."""
    real = Registry.load
    monkeypatch.setattr(
        Registry, "load", lambda registry, name: Tiny if name == "tiny" else real(registry, name)
    )
    (project / "zoo" / "models" / f"{NAME}.toml").write_text(MANIFEST)
    folder = project / "zoo" / "checkpoints" / NAME
    zoo.save(tiny(), folder, name=NAME, dataset="digits")
    release(folder)
    return folder


def measured(name: str) -> dict[str, Any]:
    """Clean accuracy over the whole test split, as a release states it."""
    test, model = load_split("digits", "test"), zoo.load(name)
    images, labels = test.take(slice(None))
    right = int((model(images).argmax(1) == labels).sum())
    value = {"value": 100 * right / len(labels), "unit": "%", "n": len(labels), "interval": [0.0, 100.0]}
    return {"clean_accuracy": value, "parameters": {"value": 1, "unit": "count"}}


def release_entry(project: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    """As :func:`install`, with a measured release and its card, so that it can be published at once."""
    (project / "cards").mkdir()
    (project / "cards" / "templates").symlink_to(Path(paths.__file__).parents[1] / "cards" / "templates")
    # It has no layer that gains from them, and making them takes half a minute.
    monkeypatch.setattr(Tiny, "compile_operators", lambda model: False)
    monkeypatch.setattr("tdsnn.hub.download.PAUSE_SECONDS", 0.0)
    listed = replace(release(install(project, monkeypatch)), metrics=measured("tiny"))
    write_release(listed)
    return cards.write(resolve("tiny"), listed, DATASETS.load("digits").about)
