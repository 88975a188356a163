"""What only a real GPU shows: rounding, memory, who waits for it, and how fast it is. ``make gpu``."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from networks import network
from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.model import spiking_resnet
from torch import Tensor, nn

from tdsnn.attacks._base import configure
from tdsnn.evaluation import clean, evaluate
from tdsnn.models._registry import MODELS
from tdsnn.runtime import deterministic, fp32_products
from tdsnn.tasks.classification import CLASSIFICATION
from tdsnn.training.loop import Trainer
from tests.training import Quiet, make_split, small

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def trainer(folder: Path, *changes: str, name: str = "tsresnet18") -> Trainer:
    split, device = make_split(), torch.device("cuda", 0)
    manifest = small("optimizer=muon", *changes, name=name)
    return Trainer(manifest, folder=folder, train=split, held_out=split, device=device)


def milliseconds(run: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


@pytest.mark.parametrize("name", ["tsresnet18", "sresnet18"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_waits_in_a_step_but_for_its_numbers(name: str, precision: str, tmp_path: Path) -> None:
    """The driver's own word for what the second device counts; waiting for an event is allowed."""
    run = trainer(tmp_path, f"precision={precision}", name=name)
    run.run(Quiet(), stop_after=2)
    steps = run._epoch()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_training_there_is_training_here(tmp_path: Path) -> None:
    lines = []
    for device in ("cpu", "cuda"):
        (tmp_path / device).mkdir()
        split, quiet = make_split(), Quiet()
        Trainer(
            small("optimizer=muon"),
            folder=tmp_path / device,
            train=split,
            held_out=split,
            device=torch.device(device),
        ).run(quiet, stop_after=2)
        lines.append([line["task"] for line in quiet.lines])
    assert lines[1] == pytest.approx(lines[0], rel=1e-3)


def test_equal_seeds_give_equal_verdicts() -> None:
    model, split = network("sresnet18", in_channels=1, mean=(0.5,), std=(0.5,)).cuda(), make_split()
    device = torch.device("cuda", 0)
    first, again = (evaluate(clean(model, CLASSIFICATION), split, device=device) for _ in range(2))
    assert (first == again).all()
    x, y = (part.cuda() for part in split.take(slice(0, 20)))
    with deterministic():
        found = [
            configure("pgd", steps=5).perturb(model, x, y, eps=8 / 255, indices=range(20)) for _ in range(2)
        ]
    assert torch.equal(found[0].x_adv, found[1].x_adv)


def test_full_precision_is_full_and_tf32_is_not() -> None:
    x, weight = torch.randn(8, 64, 32, 32), torch.randn(64, 64, 3, 3)
    exact = nn.functional.conv2d(x.double(), weight.double(), padding=1)
    errors = {}
    for tf32 in (False, True):
        with fp32_products(tf32=tf32):
            found = nn.functional.conv2d(x.cuda(), weight.cuda(), padding=1).cpu().double()
            errors[tf32] = float((found - exact).norm() / exact.norm())
    assert errors[False] < 1e-6
    if torch.cuda.get_device_capability() >= (8, 0):
        assert errors[True] > 20 * errors[False]


def test_memory_does_not_grow_from_step_to_step(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.run(Quiet(), stop_after=2)
    steps, held = run._epoch(), []
    for _ in range(3):
        next(steps)
        held.append(torch.cuda.memory_allocated())
    assert held[2] <= held[0]


def test_speed_beside_spikingjelly() -> None:
    """A pass forwards and backwards of the same network, in turn; the numbers are printed, not kept."""
    ours = MODELS.load("sresnet18")(width=64, in_channels=3, mean=[0.5] * 3, std=[0.5] * 3).cuda()
    stock = spiking_resnet.spiking_resnet18(
        spiking_neuron=neuron.LIFNode, surrogate_function=surrogate.ATan(), num_classes=10
    )
    stock.conv1, stock.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    stock.cuda()
    functional.set_step_mode(stock, "m")
    x = torch.rand(64, 3, 32, 32, device="cuda").contiguous(memory_format=torch.channels_last)

    def theirs(images: Tensor) -> Tensor:
        functional.reset_net(stock)
        return stock(images.expand(ours.timesteps, *images.shape)).mean(0)

    def step(model: Callable[[Tensor], Tensor]) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            model(x).float().square().mean().backward()

    for _ in range(3):
        step(ours)
        step(theirs)
    rounds = [(milliseconds(lambda: step(ours)), milliseconds(lambda: step(theirs))) for _ in range(20)]
    mine, other = (statistics.median(times) for times in zip(*rounds, strict=True))
    ratio = statistics.median(b / a for a, b in rounds)
    name = torch.cuda.get_device_name()
    sys.stdout.write(f"\n{name}: {mine:.1f} ms, SpikingJelly {other:.1f} ms, ratio {ratio:.2f}\n")
    assert ratio > 0.9
