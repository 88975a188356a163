"""The masking report on models of which one knows whether their gradients are masked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import needs_compiler, network, pictures
from toys import Linear, batch, flat, split

from tdsnn.attacks._gradient import inference
from tdsnn.attacks._spec import attack_specs
from tdsnn.attacks.pgd import PGD
from tdsnn.benchmark.masking import Finding, masking_report, search, surrogates
from tdsnn.benchmark.masking._base import Probe
from tdsnn.benchmark.masking.gradients import same_gradient_on_both_paths
from tdsnn.benchmark.masking.report import PROBES
from tdsnn.benchmark.plan import ModelEntry, Plan
from tdsnn.benchmark.runner import run_bench
from tdsnn.benchmark.suites import Masking, NamedSuite, Suite, SuiteAttack
from tdsnn.models._base import Model
from tdsnn.result_folder import ResultFolder
from tdsnn.tasks.classification import CLASSIFICATION

N = 30
BUDGET = Masking(images=30, steps=15, points=30)


def probe(model: Model, *, eps: float = 0.05, standing: bool = False) -> Probe:
    x, y = batch(Linear(), N)
    with torch.no_grad():
        right = (Linear().eval()(x).argmax(1) == y).nonzero().squeeze(1)
    return Probe(
        model=model.eval(),
        x=x[right],
        y=y[right],
        indices=right.numpy(),
        standing=np.full(len(right), standing),
        eps=eps,
        seed=0,
        task=CLASSIFICATION,
        budget=BUDGET,
    )


def report(
    model: Model, *, eps: float = 0.05, standing: bool = False, budget: Masking = BUDGET
) -> dict[str, Finding]:
    with inference(model):
        one = replace(probe(model, eps=eps, standing=standing), budget=budget)
        few = slice(budget.images)
        one = replace(one, x=one.x[few], y=one.y[few], indices=one.indices[few], standing=one.standing[few])
        found = masking_report(one, [], [])
    return {one.test: one for one in found}


def suite(*, masking: Masking | None = BUDGET) -> NamedSuite:
    attacks = (SuiteAttack(attack="pgd"),)
    return NamedSuite(
        name="toy", sha256="0" * 64, official=False, suite=Suite(summary="", attacks=attacks, masking=masking)
    )


def test_a_healthy_network_passes_everything() -> None:
    found = report(Linear(), eps=0.01, budget=Masking(images=8, steps=60, points=30))
    assert [one for one in found.values() if one.status not in ("pass", "not made")] == []
    assert list(found) == [f"M{number}" for number in range(1, 19)]
    assert found["M14"].figure == pytest.approx(1, abs=0.15)


def test_a_network_without_a_gradient_fails() -> None:
    found = report(flat())
    failed = {test for test, one in found.items() if one.status == "fail"}
    assert {"M2", "M8", "M9", "M14"} <= failed
    assert "zero in every pixel" in found["M2"].message


def test_a_gradient_that_points_elsewhere_fails() -> None:
    """The forward pass is right, the backward pass that of other weights: the search ends nowhere."""
    other = Linear(1).weight.detach()

    def elsewhere(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        wrong = x.flatten(1) @ other.T
        return logits.detach() + wrong - wrong.detach()

    found = report(Linear(twist=elsewhere))
    assert found["M14"].status == "fail"
    assert found["M2"].status == "pass"


def test_a_network_that_answers_differently_each_time_fails() -> None:
    calls: list[None] = []

    def drifting(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        calls.append(None)
        return logits * (1 + 0.2 * len(calls) * torch.arange(3))

    assert report(Linear(twist=drifting))["M1"].status == "fail"


def test_chance_finds_what_the_attacks_missed() -> None:
    """All are said to be left standing at a radius where hardly a point keeps its class."""
    found = report(Linear(), eps=0.5, standing=True)["M7"]
    assert found.status == "fail"
    assert found.figure is not None
    assert found.figure > 0
    assert report(Linear(), eps=0.5)["M7"].status == "not made"


def test_a_search_that_stops_too_early_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps of a tenth of the radius are a third of the way; twice as many go twice as far."""
    attack = Probe.attack
    monkeypatch.setattr(
        Probe,
        "attack",
        lambda self, text, **options: attack(
            self, f"{text.replace(',restarts=5', '')},step_fraction=0.1,random_start=false", **options
        ),
    )
    short = replace(probe(Linear(), eps=0.1), budget=Masking(images=20, steps=3, points=10))
    found = search.more_steps_find_no_more(short)
    assert (found.status, found.test) == ("fail", "M5")


def test_an_attack_that_forgets_what_it_found_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    run = PGD.run

    def forgetful(self, model, x, y, **options):
        run(self, model, x, y, **options)
        return x + 1e-6

    monkeypatch.setattr(PGD, "run", forgetful)
    silent, _ = search.nothing_found_is_lost(probe(Linear(), eps=0.25))
    assert silent.status == "fail"


@needs_compiler
@pytest.mark.parametrize("compiled", [True, False])
def test_both_paths_of_a_spiking_network(compiled: bool) -> None:
    model = network("sresnet18", compiled=compiled, timesteps=2)
    x = pictures(4)
    with torch.no_grad():
        y = model(x).argmax(1)
    one = replace(probe(Linear()), model=model, x=x, y=y)
    with inference(model):
        found = same_gradient_on_both_paths(one)
    assert found.status == ("pass" if compiled else "not made"), found
    assert all(layer.compiled == compiled for layer in model.neurons)


def test_other_surrogates_of_a_spiking_network() -> None:
    model = network("sresnet18", timesteps=2)
    x = pictures(4)
    with torch.no_grad():
        y = model(x).argmax(1)
    small = Masking(images=4, steps=2, points=2)
    one = replace(probe(Linear()), model=model, x=x, y=y, indices=np.arange(4), budget=small)
    with inference(model):
        found = [surrogates.surrogates_agree(one), surrogates.adaptive_surrogate_finds_no_more(one)]
    assert [(finding.test, finding.figure is None) for finding in found] == [("M13", False), ("M16", False)]
    without = replace(one, model=network("resnet18"))
    assert surrogates.surrogates_agree(without).message == surrogates.NO_SPIKES
    assert surrogates.adaptive_surrogate_finds_no_more(without).status == "not made"


def test_what_fools_another_network_is_tried_too() -> None:
    """The model has no gradient, but it answers as the other network does, whose gradient leads there."""
    one = replace(probe(flat(), eps=0.25, standing=True), others={"open": Linear()})
    found = surrogates.others_find_no_more(one)
    assert (found.test, found.status) == ("M15", "fail")
    assert "on open fools" in found.message
    robust = replace(one, eps=0.001)
    assert surrogates.others_find_no_more(robust).status == "pass"


def test_a_suite_reports_and_a_stored_report_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = ModelEntry(name="toy", model=flat(), checkpoint_sha256="0" * 64, source="path")
    plan = Plan(
        dataset="toy",
        split=split(Linear(), N),
        n=N,
        attacks=attack_specs(["pgd"], eps=[2, 60]),
        suite=suite(),
    )
    first = run_bench(plan, [entry], ResultFolder(tmp_path))
    (record,) = first.models
    assert {one["test"] for one in record["masking"]} >= {"M1", "M14", "M17", "M18"}
    failed = {one["title"] for one in record["masking"] if one["status"] == "fail"}
    assert {sign["check"] for sign in record["masking_signs"]} == failed
    monkeypatch.setattr("tdsnn.benchmark.examine.masking_report", None)
    again = run_bench(plan, [entry], ResultFolder(tmp_path))
    assert again.models == first.models
    (plain,) = run_bench(replace(plan, suite=suite(masking=None)), [entry], ResultFolder(tmp_path)).models
    assert {one["test"] for one in plain["masking"]} == {"M8", "M17"}


def test_every_probe_says_what_it_is() -> None:
    assert all(test.__doc__ and test.__doc__.startswith("M") for test in PROBES)
