"""The second device finds what would fail, or wait, on a GPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import network, pictures
from second_device import second_device
from torch import Tensor, nn

from tdsnn.models._neurons import LIF, LIFConfig
from tdsnn.runtime import Fetched
from tdsnn.topography.losses.stc import stc_terms

HERE = torch.arange(6.0).view(2, 3)
Planted = Callable[[Tensor], Any]


def on_cpu_in_a_loss(x: Tensor) -> Any:
    return (x - torch.ones(3)).square().mean()


def host_mask(x: Tensor) -> Any:
    return torch.where(torch.tensor([True, False, True]), x, 0.0)


def host_buffer(x: Tensor) -> Any:
    norm = nn.BatchNorm1d(3).to(x.device)
    norm.running_mean = torch.zeros(3)
    return norm.eval()(x)


def host_weights(x: Tensor) -> Any:
    return nn.Linear(3, 2)(x)


def host_labels(x: Tensor) -> Any:
    return nn.functional.cross_entropy(x, torch.tensor([0, 1]))


def host_noise(x: Tensor) -> Any:
    return x + torch.rand(x.shape, generator=torch.Generator().manual_seed(0))


def numpy_of_the_device(x: Tensor) -> Any:
    return x.numpy()


def wrong_index(x: Tensor) -> Any:
    return x + torch.zeros(3, device="cuda:0")


def device_without_index(x: Tensor) -> Any:
    return x + torch.zeros(3, device="cuda")


def kernel_of_the_current_device(x: Tensor) -> Any:
    from spikingjelly.activation_based import functional

    return functional.lif_multi_step(x[:, None], torch.zeros_like(x[0])[None], tau=2.0, decay_input=True)


def joined_with_the_host(x: Tensor) -> Any:
    return torch.cat([x, torch.zeros(1, 3)])


def scattered_from_the_host(x: Tensor) -> Any:
    return torch.zeros(2, 3).index_add_(0, torch.tensor([0, 1]), x)


@pytest.mark.parametrize(
    "fault",
    [
        on_cpu_in_a_loss,
        host_mask,
        host_buffer,
        host_weights,
        host_labels,
        host_noise,
        numpy_of_the_device,
        wrong_index,
        device_without_index,
        kernel_of_the_current_device,
        joined_with_the_host,
        scattered_from_the_host,
    ],
)
def test_what_would_fail_fails(fault: Planted) -> None:
    with second_device(1):
        x = HERE.to("cuda:1")
        with pytest.raises((RuntimeError, TypeError), match=r"cuda:[01]"):
            fault(x)
    if fault not in (numpy_of_the_device, wrong_index, device_without_index):
        fault(HERE.clone())  # it is a fault of the device alone


@pytest.mark.parametrize(
    ("look", "waits"),
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: [float(one) for one in x[0]], 3),
        (lambda x: x.tolist(), 1),
        (lambda x: bool((x > 0).all()), 1),
        (lambda x: x[x > 2], 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x.unique(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: torch.equal(x, x), 1),
        (lambda x: x[:, torch.tensor([0, 1])], 1),
        (lambda x: x.copy_(HERE), 1),
        (lambda x: HERE.to(x.device), 1),
        (lambda x: HERE.to(x.device, non_blocking=True), 1),
        (lambda x: HERE.pin_memory().to(x.device, non_blocking=True), 0),
        (lambda x: torch.empty(3, pin_memory=True).to(x.device, non_blocking=True), 0),
        (lambda x: torch.where(x > 2, x, 0.0).sum() + 1, 0),
        (lambda x: x[:, torch.zeros(2, dtype=torch.int64, device=x.device)], 0),
        (lambda x: torch.cuda.synchronize(), 1),
    ],
)
def test_a_look_at_values_is_a_wait(look: Planted, waits: int) -> None:
    with second_device() as ledger:
        x = HERE.pin_memory().to("cuda", non_blocking=True)
        assert ledger.total() == (1, 0)
        look(x)
        assert ledger.total()[1] == waits


def test_kernels_are_counted_and_views_are_none() -> None:
    with second_device() as ledger:
        x = torch.ones(2, 3, device="cuda", requires_grad=True)
        before, _ = ledger.total()
        (x.view(6, 1)[1:].T * 2).sum().backward()
        launches, _ = ledger.total()
    # Product, sum; and backwards the product, and zeros with a copy of what was cut out.
    assert launches - before == 5
    assert torch.equal(x.grad.raw, torch.tensor([[0.0, 2, 2], [2, 2, 2]]))


def test_nothing_is_left_afterwards() -> None:
    with second_device():
        torch.zeros(2, device="cuda")
    assert not torch.cuda.is_available()
    assert torch.zeros(2).device.type == "cpu"
    with pytest.raises((RuntimeError, AssertionError)):
        torch.zeros(2, device="cuda")


def test_faults_in_the_project_are_found() -> None:
    """A proximity, a potential, a shortcut of the host, where all else is on the device."""
    spikes, near = torch.ones(1, 2, 3, 4), torch.ones(1, 4, 4)
    model = network("sresnet18", width=4)
    with second_device():
        with pytest.raises(RuntimeError, match=r"stc\.py|correlation\.py"):
            stc_terms(spikes.to("cuda"), near, window=1)
        with pytest.raises(RuntimeError, match="cpu"):
            LIF(LIFConfig())(torch.ones(2, 3, 4, device="cuda"), {"": torch.zeros(3, 4)}, "")
        there = copy.deepcopy(model).to("cuda")
        there.layer2[0].downsample.to("cpu")
        with pytest.raises(RuntimeError, match=r"_residual\.py|convolution\.py"):
            there(pictures(1).to("cuda"))


def test_what_is_fetched_is_worth_nothing_before_somebody_waited() -> None:
    with second_device() as ledger:
        x = torch.ones(2, device="cuda")
        early = x.to("cpu", non_blocking=True)
        assert early.isnan().all()
        assert not ledger.waits
        assert Fetched(2 * x).read() == [2, 2]
        assert ledger.total()[1] == 1
        assert early.tolist() == [1, 1], "copies come one after the other"
