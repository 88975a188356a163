"""Pre-optimised sheets in training runs: whose responses sort them, when, and what is saved."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tdsnn.data._base import Split
from tdsnn.errors import IntegrityError, MissingError, UsageError
from tdsnn.models._base import Model
from tdsnn.training.fresh import fresh_model
from tdsnn.training.session import train
from tdsnn.training.state import OUTCOME
from tdsnn.weights import read_checkpoint
from tests.networks import network
from tests.training import Quiet, make_split, small, trainer

pytestmark = pytest.mark.usefixtures("threads")

PREPARED = ("topography.preparation=pre-optimised", "topography.attempts_per_unit=2.0", "epochs=1")


@pytest.fixture(scope="module")
def split() -> Split:
    return make_split()


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> Model:
    """Stands in for the released twin, whose layers are larger than those of these tests."""
    model = network("sresnet18", width=4, timesteps=3, in_channels=1, mean=[0.286], std=[0.353])
    config = SimpleNamespace(name="sresnet18.fashion_mnist")
    opened = SimpleNamespace(model=model, config=config, weights_sha256="ab" * 32)
    monkeypatch.setattr("tdsnn.training.loop.zoo.open_model", lambda name: opened)
    return model


def test_pre_optimised_sheets_come_from_the_twin_before_training(
    tmp_path: Path, split: Split, twin: Model
) -> None:
    run = trainer(small(*PREPARED), tmp_path / "topo", split)
    plain = fresh_model(small(), image_size=(16, 16)).sheets["layer1.0"]
    sheet = run.model.sheets["layer1.0"]
    assert sheet.preparation == "pre-optimised"
    assert sheet.log["model"] == "sresnet18.fashion_mnist"
    assert sheet.log["weights_sha256"] == "ab" * 32
    assert not torch.equal(sheet.positions, plain.positions)
    assert sorted(sheet.positions.tolist()) == sorted(plain.positions.tolist())
    assert run.objective.spatial is not None
    again = trainer(small(*PREPARED), tmp_path / "topo", split)
    assert torch.equal(again.model.sheets["layer1.0"].positions, sheet.positions)


def test_a_model_without_spatial_loss_sorts_its_own_units_at_the_end(tmp_path: Path, split: Split) -> None:
    run = trainer(small(*PREPARED, name="sresnet18"), tmp_path, split)
    assert run.model.sheets["layer1.0"].preparation == "retinotopic"
    run.run(Quiet())
    checkpoint = read_checkpoint(tmp_path / "checkpoint")
    assert checkpoint.config.sheets["layer1.0"]["preparation"] == "pre-optimised"
    assert checkpoint.config.sheets["layer1.0"]["log"]["model"] == "sresnet18.fashion_mnist"


def test_a_setting_scales_the_distances_of_a_layer() -> None:
    manifest = small('topography.unit_mm={"layer4.0" = 7.0}')
    sheets = fresh_model(manifest, image_size=(16, 16)).sheets
    assert {layer: sheet.unit_mm for layer, sheet in sheets.items() if sheet.unit_mm != 1} == {"layer4.0": 7}


def test_an_auxiliary_network_of_another_shape_is_refused(tmp_path: Path, split: Split) -> None:
    with pytest.raises(UsageError, match=r"auxiliary network's 'layer1.0' gives \(16, 16, 16\)"):
        trainer(small(*PREPARED), tmp_path, split)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (("topography.sheet_seed=1",), "seed"),
        (("topography.attempts_per_unit=3.0",), "number of attempts per unit"),
    ],
)
def test_a_search_of_other_settings_is_not_taken_up(
    tmp_path: Path, split: Split, twin: Model, changes: tuple[str, ...], part: str
) -> None:
    trainer(small(*PREPARED), tmp_path, split)
    with pytest.raises(UsageError, match=rf"was made with another {part} \(") as caught:
        trainer(small(*PREPARED, *changes), tmp_path, split)
    assert "rm " in caught.value.hint
    trainer(small(*PREPARED, "topography.alpha=0.3"), tmp_path, split)  # asks for the same search


def test_a_search_by_another_network_is_not_taken_up(tmp_path: Path, split: Split, twin: Model) -> None:
    trainer(small(*PREPARED), tmp_path, split)
    with torch.no_grad():
        twin.conv1.weight.mul_(1.01)
    with pytest.raises(UsageError, match="was made with another set of weights"):
        trainer(small(*PREPARED), tmp_path, split)


def test_a_search_from_before_there_was_an_origin_goes_on(tmp_path: Path, split: Split, twin: Model) -> None:
    run = trainer(small(*PREPARED), tmp_path, split)
    for path in (tmp_path / "positions").iterdir():
        with safe_open(path, framework="pt") as file:
            about, sites = file.metadata(), file.get_tensor("sites")
        network = json.loads(about.pop("origin"))["network"]
        save_file({"sites": sites}, path, metadata=about | {"source": json.dumps(network)})
    again = trainer(small(*PREPARED), tmp_path, split)
    assert torch.equal(again.model.sheets["layer1.0"].positions, run.model.sheets["layer1.0"].positions)
    save_file({"sites": sites}, path, metadata=about | {"source": json.dumps(network | {"model": "other"})})
    with pytest.raises(UsageError, match="was made with another network"):
        trainer(small(*PREPARED), tmp_path, split)


def test_the_loss_refuses_before_the_search(tmp_path: Path, split: Split, twin: Model) -> None:
    factors = ("topography.beta=0", "topography.loss=topoloss", "topography.factor_h=9")
    with pytest.raises(UsageError, match="cannot be reduced by 9"):
        trainer(small(*PREPARED, *factors), tmp_path, split)
    assert not (tmp_path / "positions").exists()


def test_a_damaged_search_is_named(tmp_path: Path, split: Split, twin: Model) -> None:
    trainer(small(*PREPARED), tmp_path, split)
    saved = tmp_path / "positions" / "layer1.0.safetensors"
    saved.write_bytes(saved.read_bytes()[:-9])
    with pytest.raises(IntegrityError, match=r"layer1\.0\.safetensors' is damaged"):
        trainer(small(*PREPARED), tmp_path, split)


def test_a_twin_without_weights_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what to type next is another thing once it was trained."""
    monkeypatch.setenv("TDSNN_RUNS", str(tmp_path / "my runs"))
    run = tmp_path / "my runs" / "sresnet18.cifar10"
    publish = f"tdsnn-zoo publish '{run}'"

    def hint() -> str:
        with pytest.raises(MissingError, match="arranged by what its twin answers") as caught:
            train("tsresnet18.cifar10", settings=["topography.preparation=pre-optimised"])
        return caught.value.hint

    assert hint().startswith(f"First: tdsnn-zoo train sresnet18.cifar10 && {publish}; or")
    assert not list(tmp_path.iterdir())
    run.mkdir(parents=True)
    (run / OUTCOME).touch()
    assert hint().startswith(f"First: {publish}; or")
