"""Two entries under a suite: one seed is two networks, several are two recipes."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys import Linear, flat, split

from tdsnn.attacks._spec import attack_specs
from tdsnn.benchmark.pairing import Pairing
from tdsnn.benchmark.plan import ModelEntry, Plan
from tdsnn.benchmark.runner import run_bench
from tdsnn.benchmark.suite_comparison import SuiteComparison, compare_suite
from tdsnn.benchmark.suites import NamedSuite, Suite, SuiteAttack
from tdsnn.models._base import Model
from tdsnn.result_folder import ResultFolder
from tdsnn.schema import Release

N = 60


def compared(tmp_path: Path, *seeds: tuple[Model, Model]) -> SuiteComparison:
    suite = NamedSuite(
        name="toy",
        sha256="0" * 64,
        official=False,
        suite=Suite(summary="", attacks=(SuiteAttack(attack="pgd"),)),
    )
    plan = Plan(
        dataset="toy", split=split(Linear(), N), n=N, attacks=attack_specs(["pgd"], eps=[2, 60]), suite=suite
    )
    results, pairs = {}, {}
    for seed, models in enumerate(seeds):
        names = [f"{name}.toy-s{seed}" for name in ("ours", "theirs")]
        entries = [
            ModelEntry(name=name, model=model, checkpoint_sha256=name, source="path")
            for name, model in zip(names, models, strict=True)
        ]
        results[seed] = run_bench(plan, entries, ResultFolder(tmp_path / str(seed)))
        ours, theirs = (Release(name=name, files=(), metrics={}, provenance={}) for name in names)
        pairs[seed] = (ours, theirs)
    pairing = Pairing(a="ours.toy", b="theirs.toy", dataset="toy", pairs=pairs, left_out=(), twins=False)
    return compare_suite(pairing, results)


def test_one_seed_is_about_two_networks(tmp_path: Path) -> None:
    found = compared(tmp_path, (flat(), Linear()))
    rows = {(row.attack, row.eps_255): row for row in found.rows}
    assert rows["clean", 0].verdict == "no difference shown"
    strong = rows["pgd", 60]
    assert strong.verdict.startswith(f"ours better by {strong.difference.value:.1f} points, 95 % ")
    assert strong.p_holm >= strong.p
    assert found.masked == ("ours.toy-s0",)
    shown = str(found)
    assert "not about other trainings" in shown
    assert "† Failed a test for masked gradients: ours.toy-s0." in shown


def test_the_verdict_is_said_of_the_better_one(tmp_path: Path) -> None:
    found = compared(tmp_path, (Linear(), flat()))
    (strong,) = [row for row in found.rows if row.eps_255 == 60]
    assert strong.difference.value < 0
    assert strong.verdict.startswith("theirs better by ")
    low, high = strong.verdict.rpartition("95 % ")[2].split(" to ")
    assert 0 < float(low) < float(high)


def test_several_seeds_are_about_recipes(tmp_path: Path) -> None:
    found = compared(tmp_path, (flat(), Linear()), (flat(), Linear()))
    assert found.seeds == (0, 1)
    strong = next(row for row in found.rows if row.eps_255 == 60)
    # Twice the same difference leaves no doubt to a t-test.
    assert strong.difference.low == pytest.approx(strong.difference.high)
    assert strong.difference.n == 2
    assert "Means over 2 seeds" in str(found)
    assert found.document()["suite"]["name"] == "toy"
