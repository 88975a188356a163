"""Settings of trainings: what the command line may change, and what runs recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tdsnn.errors import UsageError
from tdsnn.manifest import resolve
from tdsnn.training.recipe import override
from tdsnn.training.state import SETTINGS, check_settings, read_settings, write_settings
from tests.training import small


def test_settings_are_typed() -> None:
    changed = override(
        resolve("tsresnet18"), ["lr=1", "topography.alpha=0.25", "model.width=8", "optimizer=sgd"]
    )
    assert (changed.recipe.lr, changed.topography.alpha) == (1.0, 0.25)
    assert (changed.arguments["width"], changed.recipe.optimizer) == (8, "sgd")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lr", "'lr' is not of the form key=value"),
        ("learning_rate=1", "has an unknown key 'recipe.learning_rate'"),
        ("epoch=3", "unknown key 'recipe.epoch'; did you mean 'epochs'?"),
        ("lr=fast", "a number from 1e-08 to 100 for 'recipe.lr', not 'fast'"),
        ("lr=-1", "a number from 1e-08 to 100 for 'recipe.lr', not -1"),
        ("lr=0", "a number from 1e-08 to 100 for 'recipe.lr', not 0"),
        ("lr=nan", "for 'recipe.lr', not nan"),
        ("lr=1" + 400 * "0", "a number from 1e-08 to 100 for 'recipe.lr', not 1000"),
        ("recipe.lr.x=3", "'recipe.lr' has no parts such as 'x'"),
        ("batch_size=1.5", "a whole number from 1 to 65536 for 'recipe.batch_size', not 1.5"),
        ("batch_size=0", "a whole number from 1 to 65536 for 'recipe.batch_size', not 0"),
        ("epochs=0", "a whole number from 1 to 100000 for 'recipe.epochs', not 0"),
        ("label_smoothing=1", "of at least 0 and below 1 for 'recipe.label_smoothing', not 1"),
        (
            "optimizer=adam",
            "'adamw', 'muon' or 'sgd' for 'recipe.optimizer', not 'adam'; did you mean 'adamw'?",
        ),
        (
            "precision=fp31",
            "'bf16', 'fp32' or 'tf32' for 'recipe.precision', not 'fp31'; did you mean 'fp32'?",
        ),
        ('augmentation=["flop"]', "for 'recipe.augmentation[0]', not 'flop'; did you mean 'flip'?"),
        ("augmentation=flip", "a list for 'recipe.augmentation', not 'flip'"),
        ("model.widht=8", "unknown key 'model.arguments.widht'; did you mean 'width'?"),
        ("model.width=abc", "a whole number for 'model.arguments.width', not 'abc'"),
        ("model.width=0", "does not fit sresnet18: width must be at least 1, not 0"),
        ("model.width.x=3", "'model.width' has no parts such as 'x'"),
        ("model.timesteps=1.5", "a whole number for 'model.arguments.timesteps', not 1.5"),
        ("model.mean=['a']", "a number for 'model.arguments.mean[0]', not 'a'"),
        ("model.neuron=1", "a table for 'model.arguments.neuron', not 1"),
        ("model.neuron.tua=3", "unknown key 'model.arguments.neuron.tua'; did you mean 'tau'?"),
        ("model.neuron.tau=x", "a number for 'model.arguments.neuron.tau', not 'x'"),
        ("topo.alpha=1", "no section of settings called 'topo'"),
        ("topography.alpa=1", "unknown key 'topography.alpa'; did you mean 'alpha'?"),
        ("topography.window=4", "from 0 to 3 for 'topography.window' with 4 time steps, not 4"),
        ("topography.window_shape=triangle", "'flat' or 'triangular' for 'topography.window_shape'"),
        ("topography.form=relative", "unknown key 'topography.form'"),
        ("topography.loss=tdan", "no spatial loss called 'tdan'. Did you mean tdann?"),
        ("topography.loss=tdann", "no spike-timing term, so beta must be 0"),
        ('topography.unit_mm={"layer4.0" = "far"}', "for 'topography.unit_mm.layer4.0', not 'far'"),
        ("topography.unit_mm=7", "a table for 'topography.unit_mm', not 7"),
    ],
)
def test_wrong_settings_are_refused(setting: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        override(resolve("tsresnet18"), [setting])
    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("loss", "setting", "message"),
    [
        (
            "tdann",
            "form=relativ",
            "'absolute' or 'relative' for 'topography.form', not 'relativ'; did you mean",
        ),
        ("topoloss", "factor_h=0.5", "a number from 1 to 1000 for 'topography.factor_h', not 0.5"),
        ("topoloss", "factor_g=2", "unknown key 'topography.factor_g'; did you mean 'factor_"),
    ],
)
def test_a_loss_checks_its_own_options(loss: str, setting: str, message: str) -> None:
    chosen = f"topography.loss={loss}", "topography.beta=0"
    with pytest.raises(UsageError) as caught:
        override(resolve("tsresnet18"), [*chosen, f"topography.{setting}"])
    assert message in caught.value.message


def test_recorded_settings_may_hold_options_of_other_losses(tmp_path: Path) -> None:
    """As runs wrote them while every topography had the options of all losses."""
    write_settings(tmp_path, small())
    stored = json.loads((tmp_path / SETTINGS).read_text())
    assert stored["topography"]["window_shape"] == "flat", "options stand among the other fields"
    stored["topography"] |= {"form": "relative", "factor_h": 3.0, "factor_w": 3.0}
    stored["recipe"]["forgotten"] = 1
    (tmp_path / SETTINGS).write_text(json.dumps(stored))
    assert read_settings(tmp_path) == small()
    check_settings(tmp_path, small())
    stored["topography"]["window_shape"] = "triangular"
    (tmp_path / SETTINGS).write_text(json.dumps(stored))
    with pytest.raises(UsageError, match=r"began with 'triangular' for 'topography\.window_shape'"):
        check_settings(tmp_path, small())


def test_options_of_a_loss_that_is_replaced_are_left_out() -> None:
    before = override(resolve("tsresnet18"), ["topography.window_shape=triangular"])
    assert before.topography.options == {"window_shape": "triangular"}
    after = override(before, ["topography.factor_h=2", "topography.loss=topoloss", "topography.beta=0"])
    assert after.topography.options == {"factor_h": 2.0, "factor_w": 3.0}
    assert override(before, ["topography.loss=stc"]) == before
