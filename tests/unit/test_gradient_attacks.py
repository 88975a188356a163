"""What gradient attacks share: surrogates, survivors, random networks, networks of other libraries."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import network, pictures
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn
from toys import CLASSES, Linear, batch

from tdsnn.attacks._base import Attack, configure
from tdsnn.attacks._objective import Objective
from tdsnn.attacks._spec import attack_specs
from tdsnn.errors import GateError, UsageError
from tdsnn.kernels.surrogates import Surrogate, read_surrogate
from tdsnn.tasks.classification import CLASSIFICATION

N = 12
EPS = 0.02


def _spiking(**arguments: Any) -> tuple[nn.Module, Tensor, Tensor]:
    model = network("sresnet18", width=4, **arguments)
    x = pictures(N)
    return model, x, model(x).argmax(1)


def _points(text: str, model: nn.Module, x: Tensor, y: Tensor, **more: Any) -> Tensor:
    (spec,) = attack_specs([text])
    more = {"indices": range(len(x)), **more}
    return spec.attack.perturb(model, x, y, **{"eps": EPS, **more}).x_adv


def test_a_surrogate_changes_where_an_attack_goes() -> None:
    model, x, y = _spiking()
    found = {
        text: _points(f"fgsm:surrogate={text}", model, x, y)
        for text in ("as-trained", "atan-2", "atan-8", "triangle-0.5", "hart-1", "assg")
    }
    assert torch.equal(found.pop("atan-2"), found["as-trained"])
    points = list(found.values())
    assert not any(torch.equal(a, b) for i, a in enumerate(points) for b in points[:i])


@pytest.mark.parametrize("text", ["apgd:steps=4", "sapgd:steps=4", "pgd:steps=4"])
def test_each_sample_has_statistics_of_its_own(text: str) -> None:
    """Others that fall and leave on the way change nothing for those that stay."""
    model, x, y = _spiking(compiled=True)
    text += ",surrogate=assg"
    whole = _points(text, model, x, y, eps=5e-4)
    assert 0 < int((model(whole).argmax(1) == y).sum()) < N
    alone = [_points(text, model, x[i : i + 1], y[i : i + 1], indices=[i], eps=5e-4) for i in range(N)]
    # Sums of another batch size round otherwise, which can turn the sign of a gradient next to nothing.
    assert ((torch.cat(alone) - whole).abs() > 1e-5).float().mean() < 0.02


def test_several_surrogates_are_for_those_who_still_stand() -> None:
    model, x, y = _spiking()
    one, other, both = (
        configure("pgd", steps=2, surrogate=text).perturb(model, x, y, eps=EPS, indices=range(N)).robust
        for text in ("as-trained", "rga", "as-trained+rga")
    )
    assert not (both & ~one).any()
    assert both.sum() <= min(one.sum(), other.sum()) + 1


def test_a_sweep_is_typed_and_recorded_in_short() -> None:
    (spec,) = attack_specs(["apgd:surrogate=sweep"])
    assert spec.variant == "surrogate=sweep"
    (same,) = attack_specs(["apgd:surrogate=atan-1+atan-2+atan-4.0+atan-8+atan-16"])
    assert same == spec
    with pytest.raises(UsageError, match="no surrogate called 'atn-3'"):
        attack_specs(["pgd:surrogate=atn-3"])


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd", "apgdt", "sapgd"])
def test_a_network_without_spikes_is_refused_a_surrogate(name: str) -> None:
    plain, through = configure(name), configure(name, surrogate="atan-4")
    model, x = network("resnet18"), pictures(4)
    y = model(x).argmax(1)
    assert plain.applies_to(model)
    assert not through.applies_to(model)
    assert through.applies_to(network("sresnet18"))
    with pytest.raises(GateError, match="atan-4 has no meaning for a network without spikes"):
        through.perturb(model, x, y, eps=EPS, indices=range(4))
    assert not through.applies_to(nn.Flatten())


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, above: Tensor, slope: Any) -> Tensor:
        ctx.save_for_backward(slope(above))
        return (above >= 0).to(above)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.saved_tensors[0], None


class _Adapted(surrogate.SurrogateFunctionBase):
    """What an adapter makes of a surrogate."""

    def __init__(self, chosen: Surrogate) -> None:
        super().__init__(alpha=1.0, spiking=True)
        self.slope = chosen.derivative

    def forward(self, x: Tensor) -> Tensor:
        return _Spike.apply(x, self.slope)


class _Elsewhere(nn.Module):
    """A network of another library that offers surrogates."""

    def __init__(self, function: nn.Module | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(
                nn.Flatten(2),
                nn.Linear(512, 20),
                neuron.LIFNode(surrogate_function=function or surrogate.ATan(), step_mode="m", tau=1.5),
                nn.Linear(20, 4),
            )

    def with_surrogate(self, chosen: Surrogate) -> _Elsewhere:
        return _Elsewhere(_Adapted(chosen))

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        logits: Tensor = self.net(6 * x.expand(4, *x.shape) - 3).mean(0)
        return logits


def test_a_network_of_another_library_can_offer_surrogates() -> None:
    model, x = _Elsewhere().eval(), pictures(N)
    y = model(x).argmax(1)
    native = _Elsewhere(surrogate.Sigmoid(alpha=3.0)).eval()
    expected = Objective(native, x, y, task=CLASSIFICATION).gradient(x)
    found = Objective(model, x, y, task=CLASSIFICATION, surrogate=read_surrogate("sigmoid-3")).gradient(x)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert configure("apgd", surrogate="sweep").applies_to(model)
    refused = configure("apgd", surrogate="assg")
    assert not refused.applies_to(model)
    with pytest.raises(GateError, match=r"assg-0\.425 is no function of the potential alone"):
        refused.perturb(model, x, y, eps=EPS, indices=range(N))


def test_a_transfer_is_judged_by_the_network_itself() -> None:
    model, x, y = _spiking()
    objective = Objective(model, x, y, task=CLASSIFICATION, surrogate=read_surrogate("relu"))
    outputs, gradient = objective.gradient(x)
    torch.testing.assert_close(outputs, model(x))
    rates = model.with_surrogate(read_surrogate("relu"))
    _, expected = Objective(rates, x, y, task=CLASSIFICATION).gradient(x)
    torch.testing.assert_close(gradient, expected)
    outcome = configure("pgd", steps=3, surrogate="relu").perturb(model, x, y, eps=0.2, indices=range(N))
    assert torch.equal(outcome.robust, outcome.clean & (model(outcome.x_adv).argmax(1) == y))
    assert outcome.robust.sum() < N


def test_gradients_of_a_random_network_are_averaged() -> None:
    draws = torch.Generator().manual_seed(0)

    def noisy(x: Tensor, logits: Tensor) -> Tensor:
        return logits * (1 + 0.5 * torch.randn(CLASSES, generator=draws))

    model = Linear(twist=noisy).eval()
    x, y = batch(Linear(), 6)
    _, mean = Objective(model, x, y, task=CLASSIFICATION, draws=4).gradient(x)
    draws.manual_seed(0)
    singles = [Objective(model, x, y, task=CLASSIFICATION).gradient(x) for _ in range(5)]
    torch.testing.assert_close(mean, torch.stack([gradient for _, gradient in singles[:4]]).mean(0))
    model = Linear()
    model.images_seen = 0
    configure("pgd", steps=3, eot=5).perturb(model, x[1:2], y[1:2], eps=1e-4, indices=[0])
    assert model.images_seen == 3 * 5 + 2


def test_a_task_without_classes_is_refused_what_needs_logits() -> None:
    class Regression(type(CLASSIFICATION)):  # type: ignore[misc]
        chooses_class = False

    model = Linear(classes=4)
    attacks: list[Attack] = [configure("apgd", loss="dlr"), configure("apgdt"), configure("square")]
    for attack in attacks:
        assert attack.applies_to(model)
        assert not attack.applies_to(model, Regression())
        with pytest.raises(GateError, match="logits of classes, which this task does not have"):
            attack.perturb(model, *batch(model, 4), eps=EPS, indices=range(4), task=Regression())
    assert configure("apgd").applies_to(model, Regression())
