"""Early exit against its definition on the full run, and its curve against early exit."""

from __future__ import annotations

import math

import pytest
import torch
from networks import CLOSE, count, network, pictures
from torch import Tensor
from toys import Linear, images

from tdsnn.errors import UsageError
from tdsnn.inference import early_exit, early_exit_curve, stream
from tdsnn.models._base import Model


@pytest.fixture(scope="module", params=[False, True], ids=["eager", "compiled"])
def spiking(request: pytest.FixtureRequest) -> Model:
    return network("sresnet18", compiled=request.param)


def test_an_infinite_margin_is_the_full_run(spiking: Model) -> None:
    x = pictures(7)
    out = early_exit(spiking, x, margin=math.inf)
    assert out.steps.tolist() == [spiking.timesteps] * 7
    torch.testing.assert_close(out.logits, spiking(x).detach(), **CLOSE)


def test_a_tiny_margin_takes_one_step(spiking: Model) -> None:
    x, passes = pictures(7), count(spiking.fc)
    out = early_exit(spiking, x, margin=1e-9)
    assert passes() == 1
    assert out.steps.tolist() == [1] * 7
    torch.testing.assert_close(out.logits, spiking(x, timesteps=1).detach(), **CLOSE)


def gaps(model: Model, x: Tensor) -> Tensor:
    """(T, N): how far the mean over the first steps has its first class above the second."""
    steps = model.logits_over_time(x).detach()
    means = torch.stack([steps[: t + 1].mean(0) for t in range(len(steps))])
    first, second = means.sort(-1, descending=True).values[..., :2].unbind(-1)
    return first - second


def mixed_margin(model: Model, x: Tensor) -> float:
    """One at which samples stop at different steps, and no sample is within rounding of it."""
    found = gaps(model, x)
    margin = float(found.median()) * 1.1
    assert (found - margin).abs().min() > 1e-4
    return margin


def test_samples_stop_on_their_own(spiking: Model) -> None:
    """In a batch each gets what it gets alone, and what its definition says."""
    x = pictures(12)
    margin = mixed_margin(spiking, x)
    whole = early_exit(spiking, x, margin=margin)
    assert len(whole.steps.unique()) >= 3
    over_time = spiking.logits_over_time(x).detach()
    for index in range(len(x)):
        alone = early_exit(spiking, x[index : index + 1], margin=margin)
        clear = (gaps(spiking, x[index : index + 1])[:, 0] >= margin).tolist()
        expected = clear.index(True) + 1 if True in clear else spiking.timesteps
        assert int(alone.steps) == int(whole.steps[index]) == expected
        torch.testing.assert_close(alone.logits[0], whole.logits[index], **CLOSE)
        torch.testing.assert_close(whole.logits[index], over_time[:expected, index].mean(0), **CLOSE)


def test_samples_that_stopped_cost_nothing_more(spiking: Model) -> None:
    x, sizes = pictures(12), []
    margin = mixed_margin(spiking, x)
    handle = spiking.fc.register_forward_hook(lambda _module, _inputs, out: sizes.append(out.shape[1]))
    try:
        out = early_exit(spiking, x, margin=margin)
    finally:
        handle.remove()
    assert sizes == [int((out.steps >= step).sum()) for step in range(1, int(out.steps.max()) + 1)]


def test_the_curve_is_what_early_exit_does(spiking: Model) -> None:
    x = pictures(12)
    labels = spiking(x).argmax(1)
    labels[::4] = (labels[::4] + 1) % spiking.num_classes
    margins = [1e-9, mixed_margin(spiking, x), math.inf]
    points = early_exit_curve(spiking, x, labels, margins, batch_size=5)
    for margin, point in zip(margins, points, strict=True):
        out = early_exit(spiking, x, margin=margin)
        right = int((out.logits.argmax(1) == labels).sum())
        assert point.margin == margin
        assert point.n == 12
        assert point.accuracy_percent == pytest.approx(100 * right / 12)
        assert point.interval_percent.low < point.accuracy_percent < point.interval_percent.high
        assert point.mean_steps == pytest.approx(float(out.steps.double().mean()))
    assert [point.mean_steps for point in points] == sorted(point.mean_steps for point in points)
    assert points[-1].accuracy_percent == 75


@pytest.mark.parametrize("model", [Linear().eval(), network("resnet18")], ids=["linear", "resnet18"])
def test_a_model_without_spikes_has_one_step(model: Model) -> None:
    x = images(4) if isinstance(model, Linear) else pictures(4)
    (row,) = stream(model, x)
    torch.testing.assert_close(row, model(x).detach(), **CLOSE)
    for margin in (1e-9, math.inf):
        out = early_exit(model, x, margin=margin)
        assert out.steps.tolist() == [1] * 4
        torch.testing.assert_close(out.logits, model(x).detach(), **CLOSE)


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan])
def test_a_margin_must_be_above_zero(margin: float) -> None:
    model, x = Linear().eval(), images(2)
    with pytest.raises(UsageError, match="above 0") as caught:
        early_exit(model, x, margin=margin)
    assert "early_exit_curve" in caught.value.hint
    with pytest.raises(UsageError, match="above 0"):
        early_exit_curve(model, x, torch.zeros(2, dtype=torch.int64), [1.0, margin])


def test_what_has_no_curve_is_refused() -> None:
    model, x, labels = Linear().eval(), images(2), torch.zeros(2, dtype=torch.int64)
    for wrong_x, wrong_labels in ((x, labels[:1]), (x[:0], labels[:0]), (x, labels[:, None])):
        with pytest.raises(UsageError, match="do not belong together"):
            early_exit_curve(model, wrong_x, wrong_labels, [1.0])
    with pytest.raises(UsageError, match="batch_size"):
        early_exit_curve(model, x, labels, [1.0], batch_size=0)
    single = network("sresnet18", num_classes=1)
    with pytest.raises(UsageError, match="two classes"):
        early_exit(single, pictures(2), margin=1.0)
