"""Every registered architecture keeps the model contract."""

from __future__ import annotations

import pytest
import torch
from networks import taken

from tdsnn.errors import UsageError
from tdsnn.models._base import Model
from tdsnn.models._registry import MODELS
from tdsnn.schema import Topography
from tdsnn.topography.outputs import capture_outputs
from tdsnn.topography.preparation import fresh_sheets

SMALL = {"width": 4, "num_classes": 7, "in_channels": 2, "mean": [0.4, 0.5], "std": [0.2, 0.3]}
"""Arguments that an architecture is built with here, as far as it takes them."""


@pytest.fixture(params=MODELS.names())
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)
    built = MODELS.load(request.param)(**taken(request.param, SMALL))
    # Running statistics of real activity; with the initial ones a random network hardly fires.
    built.train()
    with torch.no_grad():
        for _ in range(5):
            built(torch.rand(16, 2, 16, 16))
    return built.eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(9, 2, 16, 16, generator=torch.Generator().manual_seed(1))


def test_logits_are_the_mean_over_time(model: Model, images: torch.Tensor) -> None:
    steps = model.logits_over_time(images)
    assert steps.shape == (model.timesteps, 9, 7)
    torch.testing.assert_close(model(images), steps.mean(0))


def test_nothing_is_remembered_between_calls(model: Model, images: torch.Tensor) -> None:
    first = model(images)
    model(images.flip(0)[:4])
    assert torch.equal(model(images), first)


def test_order_and_size_of_the_batch_do_not_matter(model: Model, images: torch.Tensor) -> None:
    whole = model(images)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(model(images[order]), whole[order])
    torch.testing.assert_close(torch.cat([model(images[:2]), model(images[2:])]), whole)


def test_timesteps_can_be_chosen(model: Model, images: torch.Tensor) -> None:
    assert model.logits_over_time(images, timesteps=3).shape[0] == 3
    # The first steps of a longer run are the run of fewer steps: nothing looks ahead.
    torch.testing.assert_close(model.logits_over_time(images, 3)[:2], model.logits_over_time(images, 2))


@pytest.mark.parametrize(
    ("timesteps", "reason"),
    [(0, "at least 1"), (10**9, "at most 10,000"), (float("inf"), "at most"), (1.5, "a whole number")],
)
def test_steps_that_cannot_be_are_refused(
    model: Model, images: torch.Tensor, timesteps: int, reason: str
) -> None:
    with pytest.raises(UsageError, match=f"The number of time steps .*{reason}"):
        model(images, timesteps)


@pytest.mark.parametrize(
    "bad",
    [torch.rand(2, 2, 16), torch.rand(2, 3, 16, 16), torch.zeros(2, 2, 16, 16, dtype=torch.uint8)],
    ids=["three dimensions", "channels", "integers"],
)
def test_wrong_images_are_refused(model: Model, bad: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="takes float images"):
        model(bad)


def test_what_is_no_tensor_is_refused(model: Model, images: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="as a tensor, not as ndarray") as caught:
        model(images.numpy())
    assert "torch.from_numpy" in caught.value.hint


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_images_of_another_type_are_cast(model: Model, images: torch.Tensor, dtype: torch.dtype) -> None:
    logits = model(images.to(dtype))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, model(images.to(dtype).float()), rtol=0, atol=0)


@pytest.mark.parametrize("compiled", [False, True])
def test_in_double_precision_it_computes_in_double_precision(
    model: Model, images: torch.Tensor, compiled: bool
) -> None:
    expected = model(images)
    if compiled:
        model.compile_operators()
    logits = model.double()(images)
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits.float(), expected, rtol=1e-4, atol=1e-4)


def test_default_type_and_device_break_nothing(model: Model, images: torch.Tensor) -> None:
    expected = model(images)
    builder = MODELS.load(model.architecture)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(model(images), expected)
        assert builder(**model.arguments).eval()(images).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert torch.equal(model(images), expected)
        assert builder(**model.arguments)(torch.rand(2, 2, 16, 16)).device.type == "meta"


def test_no_steps_are_refused(model: Model, images: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        model(images, timesteps=0)


def test_sheet_layers_give_the_units_of_their_sheets(model: Model, images: torch.Tensor) -> None:
    """Every sheet layer's captured output has the declared layout, and as many units as the sheet."""
    specs = model.sheet_specs.values()
    sheets = fresh_sheets(model, specs, Topography(), image_shape=(2, 16, 16))
    with capture_outputs(model, model.sheet_layers) as outputs:
        model(images)
    assert sheets.keys() == model.sheet_specs.keys()
    for layer, sheet in sheets.items():
        assert sheet.spec == model.sheet_specs[layer] or sheet.spec.grid == sheet.shape[1:]
        assert sheet.as_maps(outputs[layer]).shape == (model.timesteps, 9, *sheet.shape)
        assert sheet.spec.units(outputs[layer]).shape == (model.timesteps, 9, len(sheet.positions))
    with capture_outputs(model, []) as outputs:
        model(images)
    assert not outputs


def test_spiking_layers_put_out_spikes(model: Model, images: torch.Tensor) -> None:
    spiking = [name for name, layer in model.named_modules() if layer in model.neurons]
    with capture_outputs(model, spiking) as outputs:
        model(images)
    for layer, spikes in outputs.items():
        assert ((spikes == 0) | (spikes == 1)).all(), layer
    assert not spiking or any(spikes.any() for spikes in outputs.values())


def test_unknown_layer_is_refused(model: Model) -> None:
    layer = max((name for name, _ in model.named_modules()), key=len)
    with pytest.raises(UsageError, match=f"Did you mean.*{layer}"), capture_outputs(model, [f"{layer}O"]):
        pass


def test_arguments_rebuild_the_model(model: Model) -> None:
    again = MODELS.load(model.architecture)(**model.arguments)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    assert again.arguments == model.arguments


def test_every_parameter_gets_a_gradient(model: Model, images: torch.Tensor) -> None:
    model.train()
    torch.nn.functional.cross_entropy(model(images), torch.arange(9) % 7).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
