"""Every registered spatial loss can train a network, also one that is silent."""

from __future__ import annotations

import pytest
import torch
from networks import network, pictures

from tdsnn.errors import UsageError
from tdsnn.models._base import Model
from tdsnn.models._registry import MODELS
from tdsnn.schema import TOPOGRAPHY_FIELDS, Topography
from tdsnn.topography.losses._base import SPATIAL_LOSSES, SpatialLoss, SpatialTerms, complete
from tdsnn.topography.outputs import capture_outputs
from tdsnn.topography.preparation import fresh_sheets

pytestmark = pytest.mark.usefixtures("threads")


@pytest.fixture(params=SPATIAL_LOSSES.names())
def loss(request: pytest.FixtureRequest, model: Model) -> SpatialLoss:
    topography = Topography(
        loss=request.param,
        alpha=0.5,
        window=min(1, model.timesteps - 1),
        clusters=3,
        cluster_units=12,
        options={"factor_h": 2.0, "factor_w": 2.0} if request.param == "topoloss" else {},
    )
    return SPATIAL_LOSSES.load(request.param)(model, topography)


@pytest.fixture(params=MODELS.names())
def model(request: pytest.FixtureRequest) -> Model:
    built = network(request.param).train()
    if not built.sheet_specs:
        pytest.skip("nothing of it lies on sheets")
    built.sheets = fresh_sheets(
        built, built.sheet_specs.values(), Topography(), image_shape=(built.in_channels, 16, 16)
    )
    return built


def spatial(loss: SpatialLoss, model: Model, *, seed: int = 0, silent: bool = False) -> SpatialTerms:
    with capture_outputs(model, loss.layers) as captured:
        model(pictures(9))
    outputs = {layer: 0 * output if silent else output for layer, output in captured.items()}
    return loss(outputs, generator=torch.Generator().manual_seed(seed))


def test_it_reaches_the_weights_of_blocks_with_sheets(loss: SpatialLoss, model: Model) -> None:
    total, terms, parts = spatial(loss, model)
    assert set(loss.layers) <= set(model.sheets)
    assert not loss.compiled
    assert all(value.isfinite() and value.shape == () and not value.requires_grad for value in parts.values())
    assert set(terms) <= set(parts)
    assert float(total.detach()) == pytest.approx(sum(float(term.detach()) for term in terms.values()))
    assert float(total.detach()) > 0
    total.backward()
    for layer in model.sheets:
        gradients = [one.grad for one in model.get_submodule(layer).parameters() if one.grad is not None]
        assert gradients, layer
        assert all(gradient.isfinite().all() for gradient in gradients), layer
        assert any(gradient.any() for gradient in gradients), layer


def test_its_options_have_defaults_and_take_nothing_else(loss: SpatialLoss) -> None:
    name = type(loss).__module__.rpartition(".")[2]
    completed = complete(Topography(loss=name), name="The manifest")
    assert completed.options.keys() == set(type(loss).Options.__struct_fields__)
    assert not completed.options.keys() & set(TOPOGRAPHY_FIELDS), "two meanings of one key of the table"
    unknown = Topography(loss=name, options={"nonsense": 1})
    with pytest.raises(UsageError, match=r"The manifest has an unknown key 'topography\.nonsense'"):
        complete(unknown, name="The manifest")
    assert complete(unknown, name="The settings", recorded=True) == completed


def test_equal_seeds_give_equal_values(loss: SpatialLoss, model: Model) -> None:
    model.eval()
    assert torch.equal(spatial(loss, model, seed=3).total, spatial(loss, model, seed=3).total)


def test_a_silent_network_gets_a_finite_gradient(loss: SpatialLoss, model: Model) -> None:
    found = spatial(loss, model, silent=True)
    assert found.total.isfinite()
    assert all(value.isfinite() for value in found.parts.values())
    found.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
