"""TDANN's and TopoLoss's spatial losses against their formulas, and what all spatial losses share."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tdsnn.errors import UsageError
from tdsnn.schema import Topography
from tdsnn.topography.layouts import SheetSpec
from tdsnn.topography.losses._base import gradient_shares, weigh
from tdsnn.topography.losses.tdann import TDANN, absolute_loss, relative_loss
from tdsnn.topography.losses.topoloss import TopoLoss, grid_shape, roughness
from tdsnn.topography.sheets import CorticalSheet, build_sheets


def responses(units: int = 9, *, images: int = 14, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(2, B, N) like those of ReLU, and the proximity (2, N, N) of random places."""
    draws = torch.Generator().manual_seed(seed)
    positions = torch.rand(2, units, 2, generator=draws) * 3
    values = torch.randn(2, images, units, generator=draws).relu()
    return values, 1 / (1 + torch.cdist(positions, positions))


def literal(responses_BN: Tensor, proximity_NN: Tensor) -> tuple[float, float]:
    """The relative and the absolute loss of one cluster, in float64."""
    lower = np.tril_indices(responses_BN.shape[1], -1)
    similar = np.corrcoef(responses_BN.double().numpy().T)[lower]
    near = proximity_NN.double().numpy()[lower]
    return 0.5 * (1 - np.corrcoef(similar, near)[0, 1]), float(np.abs(similar - near).mean())


@pytest.mark.parametrize("seed", range(3))
def test_tdann_equals_the_literal_formula(seed: int) -> None:
    values, near = responses(seed=seed)
    relative, absolute = relative_loss(values, near)[0], absolute_loss(values, near)[0]
    for g in range(2):
        assert (float(relative[g]), float(absolute[g])) == pytest.approx(
            literal(values[g], near[g]), abs=1e-5
        )


@pytest.mark.parametrize("form", [relative_loss, absolute_loss])
def test_tdann_gradient_equals_finite_differences(form: object) -> None:
    values, near = responses()
    values = values.double().requires_grad_()
    assert callable(form)
    assert torch.autograd.gradcheck(lambda x: form(x, near.double())[0].sum(), (values,), atol=1e-5)


@pytest.mark.parametrize("form", [relative_loss, absolute_loss])
def test_tdann_leaves_constant_units_out(form: object) -> None:
    values, near = responses()
    values[..., 0] = 0
    values[..., 1] = 3
    values.requires_grad_()
    assert callable(form)
    loss, kept = form(values, near)
    torch.testing.assert_close(loss, form(values.detach()[..., 2:], near[:, 2:, 2:])[0])
    assert kept.tolist() == [7, 7]
    (grad,) = torch.autograd.grad(loss.sum(), values)
    assert grad.isfinite().all()
    assert grad[..., :2].abs().max() == 0
    assert grad[..., 2:].abs().max() > 0


def sheets() -> dict[str, CorticalSheet]:
    return build_sheets(
        {"a": (4, 8, 8), "b": (8, 4, 4)}, [SheetSpec("a", 10.0), SheetSpec("b", 20.0)], seed=0
    )


@pytest.mark.parametrize("form", ["relative", "absolute"])
def test_tdann_sums_layers_and_averages_clusters_and_time(form: str) -> None:
    whole = Topography(loss="tdann", alpha=0.25, clusters=4, cluster_units=20, options={"form": form})
    model = SimpleNamespace(sheets=sheets(), get_submodule=None)
    steps = {name: torch.rand(3, 12, *sheet.shape) for name, sheet in sheets().items()}
    mean = {name: output.mean(0, keepdim=True) for name, output in steps.items()}
    found = TDANN(model, whole)(steps, generator=torch.Generator().manual_seed(1))
    assert float(found.total) == pytest.approx(0.25 * float(found.parts["spatial"]))
    assert float(found.parts["masked"]) == 0
    again = TDANN(model, whole)(mean, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found.total, again.total)
    draws, layers = torch.Generator().manual_seed(1), []
    for name, sheet in sheets().items():
        one = SimpleNamespace(sheets={name: sheet}, get_submodule=None)
        layers.append(TDANN(one, whole)(steps, generator=draws).parts["spatial"])
    torch.testing.assert_close(found.parts["spatial"], torch.stack(layers).sum())


class Block(nn.Module):
    """Two convolutions and a shortcut, as in a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(5, 24, 3)
        self.conv2 = nn.Conv2d(24, 32, 3)
        self.downsample = nn.Sequential(nn.Conv2d(5, 32, 1), nn.BatchNorm2d(32))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer1 = nn.Conv2d(3, 5, 3), nn.Sequential(Block(), Block())
        names = ("layer1.0", "layer1.1")
        self.sheets = build_sheets(
            dict.fromkeys(names, (32, 4, 4)), [SheetSpec(name, 5.0) for name in names], seed=0
        )


@pytest.mark.parametrize(
    ("units", "shape"), [(64, (8, 8)), (32, (4, 8)), (24, (4, 6)), (7, (1, 7)), (1, (1, 1))]
)
def test_the_grid_is_as_square_as_it_can_be(units: int, shape: tuple[int, int]) -> None:
    assert grid_shape(units) == shape


@pytest.mark.parametrize("factors", [(2.0, 2.0), (3.0, 3.0), (4.0, 2.5), (1.0, 1.5)])
def test_topoloss_equals_the_authors_package(
    factors: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("einops")
    # topoloss imports it for annotations only; the real one patches pytest and pins an old typeguard.
    names = ModuleType("torchtyping")
    stand_in = type("TensorType", (), {"__class_getitem__": classmethod(lambda cls, _: cls)})
    monkeypatch.setattr(names, "TensorType", stand_in, raising=False)
    monkeypatch.setitem(sys.modules, "torchtyping", names)
    authors = pytest.importorskip("topoloss")
    model = Network()
    options = {"factor_h": factors[0], "factor_w": factors[1]}
    topography = Topography(loss="topoloss", alpha=2.5, options=options)
    ours = TopoLoss(model, topography)({}, generator=torch.Generator())
    layers = [getattr(block, name) for block in model.layer1 for name in ("conv1", "conv2")] + [
        block.downsample[0] for block in model.layer1
    ]
    theirs = authors.TopoLoss(
        losses=[authors.LaplacianPyramid.from_layer(model, layer, *factors, scale=2.5) for layer in layers]
    ).compute(model)
    torch.testing.assert_close(ours.total, theirs)
    parameters = [layer.weight for layer in layers]
    for one, two in zip(
        torch.autograd.grad(ours.total, parameters), torch.autograd.grad(theirs, parameters), strict=True
    ):
        torch.testing.assert_close(one, two)


def test_topoloss_is_low_where_neighbours_have_like_weights() -> None:
    places = torch.arange(64) // 8 + 1j * (torch.arange(64) % 8)
    waves = torch.randn(10, 2, generator=torch.Generator().manual_seed(0)) * 0.3
    smooth = torch.cos(places.real[:, None] * waves[:, 0] + places.imag[:, None] * waves[:, 1])
    mixed = smooth[torch.randperm(64, generator=torch.Generator().manual_seed(1))]
    assert float(roughness(smooth, (2.0, 2.0))) < 0.02
    assert float(roughness(mixed, (2.0, 2.0))) > 0.2
    assert float(roughness(mixed, (1.0, 1.0))) == pytest.approx(0, abs=1e-6)


def test_topoloss_refuses_what_it_cannot_blur() -> None:
    model = Network()
    with pytest.raises(UsageError, match=r"24 output channels of layer1\.0\.conv1 lie on a grid of 4 x 6"):
        TopoLoss(model, Topography(alpha=1.0, options={"factor_h": 5.0}))
    model.layer1[0].conv1 = nn.Conv2d(3, 7, 3)
    with pytest.raises(UsageError, match="grid of 1 x 7"):
        TopoLoss(model, Topography(alpha=1.0))
    model.sheets = {}
    with pytest.raises(UsageError, match="at least one convolution"):
        TopoLoss(model, Topography(alpha=1.0))


def test_tdann_refuses_no_sheet_and_unknown_forms() -> None:
    with pytest.raises(UsageError, match="at least one cortical sheet"):
        TDANN(SimpleNamespace(sheets={}, get_submodule=None), Topography(alpha=1.0))
    with pytest.raises(UsageError, match="did you mean 'absolute'"):
        TDANN(Network(), Topography(alpha=1.0, options={"form": "absolut"}))


@pytest.mark.parametrize("loss", [TDANN, TopoLoss])
def test_a_weight_for_a_term_that_is_not_there_is_refused(loss: type[TDANN] | type[TopoLoss]) -> None:
    with pytest.raises(UsageError, match=r"beta must be 0, not 0\.5"):
        loss(Network(), Topography(alpha=1.0, beta=0.5))


def test_weigh_sums_weighted_terms_and_logs_plain_ones() -> None:
    one, two = torch.tensor(2.0, requires_grad=True), torch.tensor(5.0)
    total, terms, parts = weigh({"a": (3.0, one), "b": (0.1, two)}, also_logged={"c": two})
    assert (float(total.detach()), {k: float(v.detach()) for k, v in terms.items()}) == (
        6.5,
        {"a": 6.0, "b": 0.5},
    )
    assert {key: float(value) for key, value in parts.items()} == {"a": 2, "b": 5, "c": 5}
    assert terms["a"].requires_grad
    assert not parts["a"].requires_grad


def test_gradient_shares_are_ratios_of_norms_and_keep_the_graph() -> None:
    x, y = torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)
    frozen = torch.ones(1)
    one, two = (3 * x[0] + 4 * y).sum(), (frozen * 15 * x[1]).sum()
    assert gradient_shares({"one": one, "two": two}, [x, y, frozen]) == {"one": 0.25, "two": 0.75}
    assert x.grad is None
    (one + two).backward()
    assert gradient_shares({"none": (0 * x).sum()}, [x]) == {"none": 0.0}
