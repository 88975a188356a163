"""What a network has learned decides how it is attacked, scored and compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from toys import Linear, batch, split

from tdsnn.attacks._base import configure
from tdsnn.attacks._spec import attack_specs
from tdsnn.benchmark.plan import ModelEntry, Plan
from tdsnn.benchmark.runner import run_bench
from tdsnn.data._base import DATASETS
from tdsnn.errors import UsageError
from tdsnn.result_folder import ResultFolder
from tdsnn.results import accuracy_figure
from tdsnn.stats import paired_difference
from tdsnn.tasks._base import TASKS, Task
from tdsnn.tasks.classification import CLASSIFICATION


def test_every_dataset_names_a_task_that_there_is() -> None:
    assert "classification" in TASKS.names()
    for name in DATASETS.names():
        assert isinstance(TASKS.load(DATASETS.load(name).task), Task)
    with pytest.raises(UsageError, match="Did you mean classification"):
        TASKS.load("clasification")


def test_classification_is_cross_entropy_accuracy_and_mcnemar() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 3.0], [1.0, 0.0, 2.0]])
    targets = torch.tensor([0, 2, 2])
    assert CLASSIFICATION.score(logits, targets).tolist() == [True, False, True]
    losses = -F.log_softmax(logits, 1)[torch.arange(3), targets]
    torch.testing.assert_close(CLASSIFICATION.loss(logits, targets), losses)
    assert CLASSIFICATION.chance(np.array([0, 1, 1, 1, 2])) == 0.6
    ours, theirs = np.array([True, True, False, True]), np.array([True, False, False, False])
    assert CLASSIFICATION.figure(ours) == accuracy_figure(3, 4)
    assert CLASSIFICATION.compare(ours, theirs) == paired_difference(ours, theirs)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_training_lowers_the_smoothed_cross_entropy(smoothing: float) -> None:
    """Bit for bit what PyTorch gives, so that runs of before can go on."""
    logits, targets = torch.randn(64, 10), torch.randint(10, (64,))
    found = CLASSIFICATION.training_loss(logits, targets, label_smoothing=smoothing)
    assert torch.equal(found, F.cross_entropy(logits, targets, label_smoothing=smoothing))
    spread = (1 - smoothing) * F.one_hot(targets, 10) + smoothing / 10
    torch.testing.assert_close(found, -(spread * F.log_softmax(logits, 1)).sum(1).mean())


def test_a_task_may_have_no_labels_to_smooth() -> None:
    logits, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    plain = Task.training_loss(CLASSIFICATION, logits, targets, label_smoothing=0.0)
    assert torch.equal(plain, CLASSIFICATION.loss(logits, targets).mean())
    with pytest.raises(UsageError, match=r"no labels that can be smoothed by 0\.1") as caught:
        Task.training_loss(CLASSIFICATION, logits, targets, label_smoothing=0.1)
    assert "--set label_smoothing=0" in caught.value.hint


class _Second(type(CLASSIFICATION)):  # type: ignore[misc]
    """The class after the target is the right one: another loss, score and chance."""

    def loss(self, outputs: Any, targets: Any) -> Any:
        return super().loss(outputs, (targets + 1) % 3)

    def score(self, outputs: Any, targets: Any) -> Any:
        return super().score(outputs, (targets + 1) % 3)


def test_an_attack_lowers_the_score_of_its_task() -> None:
    model = Linear()
    x, y = batch(model, 60)
    one = configure("pgd").perturb(model, x, y, eps=0.02, indices=range(60))
    other = configure("pgd").perturb(model, x, (y - 1) % 3, eps=0.02, indices=range(60), task=_Second())
    assert 0 < one.robust.sum() < one.clean.sum()
    assert torch.equal(one.x_adv, other.x_adv)
    assert torch.equal(one.robust, other.robust)


def test_a_benchmark_scores_by_the_task_of_its_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = split(Linear(), 30)
    shifted = replace(images, labels=(images.labels - 1) % 3, task="second")
    entry = ModelEntry(name="toy", model=Linear(), checkpoint_sha256="0" * 64, source="path")
    load = type(TASKS).load
    monkeypatch.setattr(
        type(TASKS), "load", lambda registry, name: _Second() if name == "second" else load(registry, name)
    )
    results = [
        run_bench(
            Plan(dataset="toy", split=one, n=30, attacks=attack_specs(["pgd"], eps=[8])),
            [entry],
            ResultFolder(tmp_path / one.task),
        )
        for one in (images, shifted)
    ]
    assert [cell.accuracy for cell in results[0].cells] == [cell.accuracy for cell in results[1].cells]
    assert [result.settings["task"] for result in results] == ["classification", "second"]
    assert not {cell.key for cell in results[0].cells} & {cell.key for cell in results[1].cells}
