"""Processes that share a batch train as one process does on the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from shared_batch import LOSSES, first_step, spatial_loss_alone
from torch import Tensor, nn

from tdsnn.errors import UsageError
from tdsnn.processes import ALONE
from tdsnn.schema import Recipe, plain
from tdsnn.training.shared_norm import SharedBatchNorm2d, keep_statistics_apart, share_statistics
from tests.training import small

pytestmark = pytest.mark.usefixtures("threads")


Found = dict[int, list[dict[str, Any]]]
"""Number of processes to what each of them found."""


def run_them(folder: Path) -> Found:
    script = Path(__file__).parents[1] / "shared_batch.py"
    environment = os.environ | {"PYTHONPATH": str(script.parents[1]), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(script), str(folder)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return {
        size: [torch.load(folder / f"{size}-{rank}.pt", weights_only=False) for rank in range(size)]
        for size in (2, 4)
    }


def distance(one: Tensor, other: Tensor) -> float:
    """Relative to the second."""
    return float((one - other).norm() / other.norm())


@pytest.mark.slow
def test_several_processes_train_as_one(tmp_path: Path) -> None:
    found = run_them(tmp_path)
    for loss, alone in spatial_loss_alone(ALONE).items():
        assert alone["gradient"].abs().max() > 0
        for size, everyone in found.items():
            for rank, part in enumerate(one["alone"][loss] for one in everyone):
                assert part["loss"] == pytest.approx(alone["loss"], abs=1e-5)
                assert distance(part["gradient"], alone["gradient"][:, rank::size]) < 1e-5
    for loss in LOSSES:
        one = first_step(loss, tmp_path / "one", "sync_batch_norm=true")
        for step in (process[loss] for everyone in found.values() for process in everyone):
            assert step["logged"] == pytest.approx(one["logged"], abs=1e-5)
            assert step["shares"] == pytest.approx(one["shares"], abs=1e-4)
            # PyTorch's normalisation of one process rounds otherwise: 5e-5.
            assert distance(step["gradient"], one["gradient"]) < 2e-4
            assert distance(step["statistics"], one["statistics"]) < 1e-5
        assert distance(found[2][0][loss]["gradient"], found[4][3][loss]["gradient"]) < 1e-5
    apart = [process["apart"]["gradient"] for process in found[2]]
    assert distance(*apart) == 0
    assert distance(apart[0], found[2][0]["stc"]["gradient"]) > 1e-2, "statistics of shares are others"
    _one_process_works_for_all(*(process["run"] for process in found[2]))


def _one_process_works_for_all(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert (first["searched"], first["measured"]) == (1, 1)
    assert (second["searched"], second["measured"]) == (0, 0)
    for name, positions in first["positions"].items():
        assert torch.equal(positions, second["positions"][name])
    assert first["norms"] == {nn.BatchNorm2d}, "what is saved is the architecture's own"
    assert second["norms"] == {SharedBatchNorm2d}


def test_a_shared_normalisation_is_pytorchs_and_can_be_undone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4, momentum=None))
    )
    names = list(model.state_dict())
    x = torch.randn(5, 3, 8, 8) + 3
    before = {key: value.clone() for key, value in model.state_dict().items()}
    plain = model(x)
    after = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(before)
    share_statistics(model, ALONE)
    torch.testing.assert_close(model(x), plain, atol=1e-5, rtol=1e-5)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(dict(model.state_dict()), after)
    model.eval()
    keep_statistics_apart(model)
    assert {type(one) for one in model.modules()} == {nn.Sequential, nn.Conv2d, nn.BatchNorm2d}
    assert not any(one.training for one in model.modules())
    torch.testing.assert_close(dict(model.state_dict()), after)


def test_other_normalisations_are_refused() -> None:
    with pytest.raises(UsageError, match="not of BatchNorm1d") as caught:
        share_statistics(nn.Sequential(nn.BatchNorm1d(3)), ALONE)
    assert "sync_batch_norm=false" in caught.value.hint


def test_settings_of_before_keep_their_digest() -> None:
    assert "sync_batch_norm" not in plain(Recipe())
    assert plain(small("sync_batch_norm=true").recipe)["sync_batch_norm"] is True
