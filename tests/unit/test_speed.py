"""The speed benchmarks measure what they say: order, ratios, work, equal models, and their JSON."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed import __main__ as command
from benchmarks.speed import attacks, memory, trajectory
from benchmarks.speed._measure import (
    Ratio,
    Row,
    Target,
    Timings,
    in_fresh_process,
    interleave,
    speedup_row,
)
from benchmarks.speed._steps import (
    OURS,
    STOCK_BF16,
    STOCK_FP32,
    TrainingStep,
    make_batch,
    make_ours,
    make_step,
    make_stock,
)
from benchmarks.speed.roofline import Peaks, conv_flops
from tdsnn.errors import MissingError, TdsnnError, UsageError
from tdsnn.models.sresnet18 import sresnet18


def test_sides_take_turns_after_their_warm_up() -> None:
    calls: list[str] = []
    timings = interleave(
        {"stock": lambda: calls.append("stock"), "ours": lambda: calls.append("ours")},
        rounds=3,
        calls=2,
        warmup=1,
    )
    assert calls == ["stock", "ours"] + 3 * ["stock", "stock", "ours", "ours"]
    assert [len(one) for one in timings.seconds["ours"]] == [2, 2, 2]


def test_the_ratio_is_the_median_of_the_ratios_of_single_rounds() -> None:
    # The machine is ten times slower in the second round; the ratio of the medians would be 8 / 2 = 4.
    timings = Timings({"stock": [[8.0], [60.0], [6.0]], "ours": [[2.0], [20.0], [1.0]]})
    assert timings.ratio("stock", "ours") == Ratio(median=4.0, low=3.0, high=6.0)
    assert timings.median("stock") == 8.0


def test_a_quantile_is_taken_within_each_round() -> None:
    timings = Timings({"stock": [[1.0, 2.0, 9.0], [1.0, 2.0, 3.0], [4.0, 4.0, 4.0]]})
    assert timings.rounds("stock") == [2.0, 2.0, 4.0]
    assert timings.median("stock", quantile=1.0) == 4.0


def test_a_speedup_row_counts_images_and_knows_its_target() -> None:
    timings = Timings({"stock": [[4.0], [8.0]], "ours": [[2.0], [2.0]]})
    row = speedup_row(
        "step", timings, stock="stock", ours="ours", images=6, target=Target(bound="at least", value=3.0)
    )
    assert (row.stock, row.ours) == (1.0, 3.0)
    assert row.ratio == Ratio(median=3.0, low=2.0, high=4.0)
    assert row.reached is True


@pytest.mark.parametrize(
    ("target", "ratio", "reached"),
    [
        (None, 9.0, None),
        (Target(bound="at least", value=4.0), 3.99, False),
        (Target(bound="at most", value=0.6), 0.6, True),
        (Target(bound="at most", value=0.6), 0.61, False),
        (Target(bound="at most", value=10.0), None, True),
        (Target(bound="at least", value=10.0), None, False),
    ],
)
def test_targets_judge_the_ratio_or_else_our_figure(
    target: Target | None, ratio: float | None, reached: bool | None
) -> None:
    spread = None if ratio is None else Ratio(median=ratio, low=ratio, high=ratio)
    assert Row(name="a", unit="s", ours=5.0, ratio=spread, target=target).reached is reached


def test_work_equals_a_count_by_hand() -> None:
    """Width 1: 3x3 and 1x1 kernels on 32, 16, 8 and 4 pixels a side."""
    stem = 3 * 9 * 32**2
    blocks = 4 * 9 * 32**2
    for stage, side in ((1, 16), (2, 8), (3, 4)):
        channels, before = 2**stage, 2 ** (stage - 1)
        blocks += (9 * before * channels + 3 * 9 * channels**2 + before * channels) * side**2
    forward = 2 * (stem + 4 * blocks)
    assert conv_flops(width=1, timesteps=4, training=False) == forward
    assert conv_flops(width=1, timesteps=4, training=True) == 3 * forward - 2 * stem


def test_work_equals_what_our_training_step_does() -> None:
    model = sresnet18(width=2, timesteps=3)
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(2, 3, 32, 32)).sum().backward()
    counts = counter.get_flop_counts()["Global"]
    done = counts[torch.ops.aten.convolution] + counts[torch.ops.aten.convolution_backward]
    assert done == 2 * conv_flops(width=2, timesteps=3, training=True)


def test_the_share_of_the_peak_depends_on_the_precision() -> None:
    found = Peaks(fp32_flops_per_s=100.0, bf16_flops_per_s=400.0, copy_bytes_per_s=1.0)
    assert found.share(50.0, seconds=2.0, bf16=False) == 0.25
    assert found.share(50.0, seconds=2.0, bf16=True) == 0.0625


def test_the_stock_model_computes_what_ours_does() -> None:
    torch.manual_seed(0)
    ours = sresnet18(width=4).train()
    stock = make_stock(width=4, channels_last=True).train()
    stock.net.load_state_dict(ours.state_dict())
    x = torch.rand(6, 3, 32, 32)
    logits = ours(x)
    assert logits.std(0).min() > 0
    torch.testing.assert_close(stock(x), logits, rtol=1e-4, atol=1e-5)
    # A second call meets no state of the first.
    torch.testing.assert_close(stock(x), logits, rtol=1e-4, atol=1e-5)


def test_both_sides_start_with_equal_weights() -> None:
    ours, stock = make_ours(width=4), make_stock(width=4, channels_last=False)
    theirs = stock.net.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize("side", [STOCK_FP32, STOCK_BF16, OURS])
def test_a_step_lowers_the_loss_of_its_batch(side: str) -> None:
    step, batch = make_step(side, width=4), make_batch(8)
    losses = [step(batch) for _ in range(8)]
    assert losses[-1] < losses[0]


def test_the_spatial_loss_enters_the_step() -> None:
    def spatial(outputs: dict[str, torch.Tensor], *, generator: torch.Generator) -> tuple[torch.Tensor, dict]:
        assert len(outputs) == 8
        return torch.tensor(100.0, requires_grad=True), {}

    batch = make_batch(4)
    without = TrainingStep(make_ours(width=4), bf16=False)(batch)
    added = TrainingStep(make_ours(width=4), bf16=False, spatial=spatial)(batch)
    assert added == pytest.approx(without + 100)


def test_an_unknown_side_is_refused() -> None:
    with pytest.raises(UsageError, match="no side 'theirs'"):
        make_step("theirs", width=4)


def test_curves_are_compared_over_seeds() -> None:
    rng = np.random.default_rng(0)
    stock = [list(np.linspace(2.3, 1.0, 200) + offset) for offset in rng.normal(0, 0.5, 4)]
    close = [
        [loss + offset for loss in curve] for curve, offset in zip(stock, (0.1, -0.1, 0.05, 0), strict=True)
    ]
    worse = [[loss + 0.2 for loss in curve] for curve in close]
    found = trajectory.compare(stock, close)
    assert found.stock == pytest.approx(np.mean(stock, axis=1))
    assert found.difference == pytest.approx(0.0125)
    expected = scipy.stats.ttest_rel(np.mean(close, axis=1), np.mean(stock, axis=1)).confidence_interval(0.95)
    assert found.difference + found.half_width == pytest.approx(expected.high)
    assert abs(found.difference) < found.half_width
    assert trajectory.compare(stock, worse).difference > trajectory.compare(stock, worse).half_width


def test_a_seed_fixes_weights_and_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trajectory, "_WIDTH", 8)
    monkeypatch.setattr(trajectory, "_split", lambda: None)  # decoding CIFAR-10 takes longer than all else
    one, same, other = (trajectory.losses(seed, steps=2) for seed in (0, 0, 1))
    assert one == same
    assert one["ours"] != other["ours"]


@pytest.mark.parametrize(("wrong_pass", "last", "any_iterate"), [(5, True, False), (11, False, False)])
def test_the_reference_attack_is_judged_by_both_rules(wrong_pass: int, last: bool, any_iterate: bool) -> None:
    """Pass 0 is the clean verdict, 1 to 10 are the steps, 11 judges the last iterate."""
    pytest.importorskip("torchattacks")
    passes = itertools.cycle(range(12))

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sign = -1.0 if next(passes) == wrong_pass else 1.0
            pixels = x.flatten(1).sum(1)
            return sign * torch.stack([1 + pixels, -pixels], 1)

    # The second image is misclassified without attack, so it never counts as robust.
    batches = [
        (range(2), torch.rand(2, 1, 4, 4), torch.tensor([0, 1])),
        (range(2, 3), torch.rand(1, 1, 4, 4), torch.tensor([0])),
    ]
    theirs = attacks.Theirs(Model(), [batches], 8 / 255, steps=10)
    theirs()
    assert theirs.robust.tolist() == [last, False, last]
    assert theirs.robust_any.tolist() == [any_iterate, False, any_iterate]


def test_peak_memory_sees_an_allocation() -> None:
    try:
        grown = in_fresh_process(_grow, 1 << 27)
    except MissingError as error:
        pytest.skip(error.message)
    # The kernel counts pages in batches.
    assert grown == pytest.approx(1 << 27, rel=0.05)


def _grow(size: int) -> int:
    before = memory.peak_resident()
    np.ones(size, dtype=np.uint8)
    return memory.peak_resident() - before


def test_a_process_that_dies_is_an_error() -> None:
    with pytest.raises(TdsnnError, match="that measures _exit died"):
        in_fresh_process(os._exit, 3)


def test_a_quick_run_of_one_part_prints_a_table_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "speed.json"
    assert command.main(["--quick", "--rounds", "1", "--only", "data", "--out", str(out)]) == 0
    assert "batch preparation" in capsys.readouterr().out
    document = json.loads(out.read_text(encoding="utf-8"))
    assert document["schema"] == command.SCHEMA
    assert document["settings"] == {"parts": ["data"], "quick": True, "rounds": 1}
    assert torch.__version__.startswith(document["environment"]["packages"]["torch"])
    assert document["skipped"] == {}
    (row,) = document["rows"]
    assert row["part"] == "data"
    assert row["unit"] == "ms"
    assert row["ratio"]["median"] == pytest.approx(row["ours"] / row["stock"])
    assert row["target"] == {"bound": "at most", "value": 0.03}
    assert row["reached"] == (row["ratio"]["median"] <= 0.03)


def test_the_details_of_a_row_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Row(name="attack", unit="s", ours=1.0, details={"verdicts_differing": 17, "windows": [2.25, 1.5]})
    monkeypatch.setattr(attacks, "run", lambda settings: [row])
    assert command.main(["--quick", "--only", "attacks"]) == 0
    shown = capsys.readouterr().out
    assert "verdicts differing" in shown
    assert "17" in shown
    assert "2.25 1.5" in shown


def test_a_part_whose_package_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(name: str) -> object:
        raise ModuleNotFoundError(f"No module named 'that' for {name}", name="that")

    monkeypatch.setattr(command.importlib, "import_module", fail)
    document = command.measure(["data"], quick=True, rounds=1)
    assert document["rows"] == []
    assert "'that'" in document["skipped"]["data"]
    assert "make .venv/.installed-dev" in capsys.readouterr().err


def test_a_part_that_cannot_run_is_named_and_gives_no_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(settings: object) -> list[Row]:
        raise MissingError("No images here.", hint="Get some.")

    monkeypatch.setattr(attacks, "run", missing)
    assert command.main(["--quick", "--json", "--only", "attacks"]) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert document["rows"] == []
    assert document["skipped"] == {"attacks": "No images here."}
    assert "Get some." in shown.err


def test_every_part_has_a_run_and_unknown_ones_are_refused() -> None:
    assert {"attacks", "inference", "memory", "roofline", "train", "trajectory"} <= set(command.PARTS)
    with pytest.raises(SystemExit):
        command.main(["--only", "nothing"])
    with pytest.raises(SystemExit):
        command.main(["--rounds", "0"])
