"""Captured outputs: all steps of a pass, whatever the module gives in one, and nothing of another pass."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from tdsnn.errors import UsageError
from tdsnn.schema import Topography
from tdsnn.topography.layouts import Layout, SheetSpec
from tdsnn.topography.outputs import CapturedOutputs, capture_outputs, evaluating, sheet_shapes
from tdsnn.topography.preparation import fresh_sheets
from tdsnn.topography.responses import StimulusSet, record_responses

STEPS = 3
FORMS: dict[str, tuple[Layout, tuple[int, ...]]] = {
    "maps": ("maps", (5, 2, 2)),
    "vector": ("maps", (5,)),
    "tokens": ("tokens", (4, 5)),
}
"""Layout, and shape of one sample at one step."""


class Net(nn.Module):
    """Its layer puts out tanh of a learned pattern, scaled by the mean of the image and the step.

    Args:
        calls: ``whole`` (all steps at once), ``timed`` (an axis of time in each step) or ``bare`` (none).
    """

    def __init__(self, form: str, calls: str) -> None:
        super().__init__()
        self.shape, self.calls = FORMS[form][1], calls
        self.pattern = nn.Parameter(torch.linspace(-1, 1, 20)[: int(torch.tensor(self.shape).prod())])
        self.layer, self.unused = nn.Tanh(), nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        drive = images.mean((1, 2, 3))[None] * torch.arange(1.0, STEPS + 1)[:, None]
        current = drive.view(STEPS, len(images), *[1] * len(self.shape)) * self.pattern.view(self.shape)
        parts = {"whole": [current], "timed": current.split(1), "bare": current.unbind()}[self.calls]
        return torch.stack([self.layer(part).mean() for part in parts])


def spec(form: str) -> SheetSpec:
    return SheetSpec("layer", 4.0, FORMS[form][0])


def images(n: int = 2) -> Tensor:
    return torch.rand(n, 1, 3, 3, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("calls", ["timed", "bare"])
@pytest.mark.parametrize("form", FORMS)
def test_single_steps_are_all_steps_at_once(form: str, calls: str) -> None:
    found = []
    for kind in ("whole", calls):
        net = Net(form, kind)
        with capture_outputs(net, [spec(form)]) as outputs:
            net(images())
        assert outputs["layer"].shape == (STEPS, 2, *FORMS[form][1])
        found.append((outputs["layer"], *torch.autograd.grad(outputs["layer"].sum(), net.pattern)))
    for whole, single in zip(*found, strict=True):
        torch.testing.assert_close(single, whole)


@pytest.mark.parametrize("form", FORMS)
def test_a_network_without_time_has_one_step(form: str) -> None:
    net = Net(form, "bare")
    with capture_outputs(net, [spec(form)]) as outputs:
        net.layer(torch.zeros(2, *FORMS[form][1]))
    assert spec(form).as_maps(outputs["layer"]).shape[:2] == (1, 2)


def test_a_model_declares_how_its_layers_lie() -> None:
    net = Net("tokens", "timed")
    with capture_outputs(net, ["layer"]) as outputs:
        net(images())
    assert outputs["layer"].shape == (STEPS, 1, 2, 4, 5), "by name alone four axes are maps without time"
    net.sheet_specs = {"layer": spec("tokens")}
    with capture_outputs(net, ["layer"]) as outputs:
        net(images())
    assert outputs["layer"].shape == (STEPS, 2, 4, 5)


def test_a_pass_takes_the_place_of_the_one_before() -> None:
    net = Net("maps", "bare")
    with capture_outputs(net, [spec("maps")]) as outputs:
        net(images(2))
        first = outputs["layer"]
        freed = weakref.ref(first)
        net(images(4))
        assert outputs["layer"].shape[1] == 4
        assert not torch.equal(outputs["layer"][:, :2], first)
        del first
        gc.collect()
        assert freed() is None, "the graph of an earlier pass is kept"


def test_parts_alone_add_to_a_pass() -> None:
    net = Net("maps", "bare")
    with capture_outputs(net, [spec("maps")]) as outputs:
        net(images())
        assert outputs["layer"].shape[0] == STEPS
        net.layer(torch.zeros(2, 5, 2, 2))
        assert outputs["layer"].shape[0] == STEPS + 1
        net.layer(torch.zeros(3, 5, 2, 2))
        with pytest.raises(
            UsageError, match=r"different shapes in one pass: \(2, 5, 2, 2\) and \(3, 5, 2, 2\)"
        ):
            outputs["layer"]
        outputs.clear()
        assert not outputs


def hooks(net: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in net.modules())


def test_no_hook_is_left_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net("maps", "bare")
    with capture_outputs(net, ["layer", "unused"]):
        assert hooks(net) == 3
    assert hooks(net) == 0
    with pytest.raises(IndexError), capture_outputs(net, ["layer", "unused"]):
        net(torch.zeros(2))
    assert hooks(net) == 0
    with pytest.raises(UsageError, match="Did you mean layer"), capture_outputs(net, ["unused", "layr"]):
        pass
    assert hooks(net) == 0
    monkeypatch.setattr(net.unused, "register_forward_hook", lambda hook: 1 / 0)
    with pytest.raises(ZeroDivisionError), capture_outputs(net, ["layer", "unused"]):
        pass
    assert hooks(net) == 0


def test_a_layer_that_is_named_twice_is_captured_once() -> None:
    net = Net("maps", "whole")
    with capture_outputs(net, ["layer", "layer"]) as outputs:
        net(images())
    assert outputs["layer"].shape[0] == STEPS


def test_a_layer_that_did_not_run_is_refused() -> None:
    net = Net("maps", "whole")
    with capture_outputs(net, ["layer", "unused"]) as outputs:
        net(images())
    assert list(outputs) == ["layer"]
    assert "unused" not in outputs
    with pytest.raises(UsageError, match="'unused' did not run"):
        outputs["unused"]
    with pytest.raises(KeyError):
        outputs["never named"]
    shown = StimulusSet(name="any", images=images(), factors={}, levels={})
    with pytest.raises(UsageError, match="'unused' did not run"):
        record_responses(net, shown, ["unused"])


def test_an_output_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(UsageError, match="'layer' gives a dict, so it has no units"):
        CapturedOutputs({"layer": None}).add("layer", {"spikes": torch.zeros(1)})
    with pytest.raises(UsageError, match="'layer' gives a tuple, so it has no units"):
        CapturedOutputs({"layer": None}).add("layer", ())


def test_of_several_outputs_the_first_is_taken() -> None:
    found, spikes = CapturedOutputs({"layer": None}), torch.ones(1)
    found.add("layer", (spikes, torch.zeros(1)))
    assert found["layer"] is spikes


@pytest.mark.parametrize("form", FORMS)
def test_sheets_and_responses_have_the_units_of_the_layer(form: str) -> None:
    net = Net(form, "bare").train()
    made = fresh_sheets(net, [spec(form)], Topography(), image_shape=(1, 3, 3))["layer"]
    assert made.shape == sheet_shapes(net, [spec(form)], image_shape=(1, 3, 3))["layer"]
    assert net.training
    shown = StimulusSet(name="any", images=images(5), factors={}, levels={})
    answers = record_responses(net, shown, [made.spec], batch_size=2)["layer"]
    assert answers.shape == made.shape
    with capture_outputs(net, [spec(form)]) as outputs, torch.no_grad():
        net(images(5))
    torch.testing.assert_close(answers.rates, spec(form).units(outputs["layer"]).mean(0))


def test_what_is_measured_is_in_full_precision() -> None:
    seen, cudnn = [], torch.backends.cudnn
    model = Net("maps", "whole")
    model.layer.register_forward_hook(lambda *_: seen.append((cudnn.allow_tf32, cudnn.deterministic)))
    before = cudnn.allow_tf32, cudnn.deterministic
    with evaluating(model):
        model(torch.rand(2, 1, 4, 4))
    assert seen == [(False, True)]
    assert (cudnn.allow_tf32, cudnn.deterministic) == before
