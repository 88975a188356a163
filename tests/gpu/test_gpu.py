"""What only a real GPU shows: rounding, memory, who waits for it, and how fast it is. ``make gpu``."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from networks import network
from torch import nn

from benchmarks.speed._stock import Stock
from tdsnn.attacks._base import configure
from tdsnn.evaluation import clean, evaluate
from tdsnn.kernels.gpu._ready import ready
from tdsnn.models.sresnet18 import sresnet18
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
@pytest.mark.parametrize("compile", ["true", "false"])
def test_nothing_waits_in_a_step_but_for_its_numbers(
    name: str, precision: str, compile: str, tmp_path: Path
) -> None:
    """The driver's own word for what the second device counts; waiting for an event is allowed."""
    run = trainer(tmp_path, f"precision={precision}", f"compile={compile}", name=name)
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
    (here, here_then), (there, there_then) = lines
    assert there == pytest.approx(here, rel=1e-4)
    # Muon's steps enlarge what rounding left in the gradient, and spikes flip.
    assert there_then == pytest.approx(here_then, rel=2e-2)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("sresnet18", 0.0),
        ("tsresnet18", 1e-2),  # gradients of units that are in several clusters add up in any order
    ],
)
def test_resumed_it_is_as_undisturbed(name: str, tolerance: float, tmp_path: Path) -> None:
    folders = [tmp_path / "whole", tmp_path / "parts"]
    for folder in folders:
        folder.mkdir()
    whole, first, second = (
        trainer(folder, "compile=true", "precision=bf16", name=name)
        for folder in (folders[0], folders[1], folders[1])
    )
    whole.run(Quiet(), stop_after=6)
    first.run(Quiet(), stop_after=3)
    second.resume()
    second.run(Quiet(), stop_after=3)
    for ours, theirs in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


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
    draws = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=draws) for shape in ((8, 64, 32, 32), (64, 64, 3, 3)))
    exact = nn.functional.conv2d(x.double(), weight.double(), padding=1)
    errors = {}
    for tf32 in (False, True):
        with fp32_products(tf32=tf32):
            found = nn.functional.conv2d(x.cuda(), weight.cuda(), padding=1).cpu().double()
            errors[tf32] = float((found - exact).norm() / exact.norm())
    # Winograd's algorithm, which is fp32 too, rounds more than a plain sum.
    assert errors[False] < 5e-6
    if torch.cuda.get_device_capability() >= (8, 0):
        assert errors[True] > 20 * errors[False]


def test_memory_does_not_grow_from_step_to_step(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.run(Quiet(), stop_after=2)
    steps, held = run._epoch(), []
    for _ in range(3):
        next(steps)
        held.append(torch.cuda.memory_allocated())
    assert held[2] <= 1.01 * held[0], "neighbourhoods have other numbers of units"


def test_speed_and_memory_beside_spikingjelly() -> None:
    """A pass forwards and backwards of the same network, in turn; the numbers are printed, not kept."""
    ours = sresnet18(width=64, timesteps=4, num_classes=10).cuda()
    assert ours.compile_operators(), ready(torch.device("cuda")).reason
    stock = Stock(width=64, timesteps=4)
    stock.net.load_state_dict(ours.state_dict())
    stock.to("cuda", memory_format=torch.channels_last)
    x = torch.rand(64, 3, 32, 32, device="cuda").contiguous(memory_format=torch.channels_last)

    def step(model: nn.Module) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            logits = model(x)
        logits.float().square().mean().backward()

    peaks = []
    for model in (ours, stock):
        step(model)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(model)
        peaks.append((torch.cuda.max_memory_allocated() - before) / 2**20)
    rounds = [(milliseconds(lambda: step(ours)), milliseconds(lambda: step(stock))) for _ in range(20)]
    mine, other = (statistics.median(times) for times in zip(*rounds, strict=True))
    ratio = statistics.median(b / a for a, b in rounds)
    name = torch.cuda.get_device_name()
    sys.stdout.write(
        f"\n{name}: {mine:.1f} ms and {peaks[0]:.0f} MiB, "
        f"SpikingJelly {other:.1f} ms and {peaks[1]:.0f} MiB, ratio {ratio:.2f}\n"
    )
    assert ratio > 0.9
    assert peaks[0] < peaks[1]
