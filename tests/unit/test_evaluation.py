"""The one pass over a split that gives scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from toys import Linear, split

from tdsnn.errors import GateError
from tdsnn.evaluation import clean, evaluate
from tdsnn.tasks.classification import CLASSIFICATION

CPU = torch.device("cpu")


@pytest.mark.parametrize("batch_size", [7, 30, 250])
def test_scores_are_those_of_single_passes_in_eval_mode(batch_size: int) -> None:
    model = Linear()
    images = split(model, 30)
    x, y = images.take(slice(None))
    right = (model.eval()(x).argmax(1) == y).numpy()
    assert 0 < right.sum() < 30
    seen: list[tuple[int, int]] = []
    judge = clean(model.train(), CLASSIFICATION)
    found = evaluate(
        judge, images, device=CPU, batch_size=batch_size, progress=lambda *done: seen.append(done)
    )
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, right)
    assert seen[-1] == (30, 30)
    assert len(seen) == math.ceil(30 / batch_size)
    assert model.training
    assert model.dropout.training
    assert model.weight.requires_grad
    rows = [20, 3, 11]
    np.testing.assert_array_equal(evaluate(judge, images, device=CPU, rows=rows), right[rows])


def test_outputs_that_are_no_numbers_are_no_verdicts() -> None:
    model = Linear(twist=lambda x, logits: logits * math.nan)
    with pytest.raises(GateError, match="not finite"):
        evaluate(clean(model, CLASSIFICATION), split(Linear(), 4), device=CPU)
