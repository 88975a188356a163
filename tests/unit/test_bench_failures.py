"""What fails costs its own cells: other attacks, strengths and models still get their numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from toys import Linear, split

from tdsnn.attacks._base import Attack
from tdsnn.attacks._spec import AttackSpec, attack_specs
from tdsnn.benchmark.plan import ModelEntry, Plan
from tdsnn.benchmark.runner import run_bench
from tdsnn.errors import UsageError
from tdsnn.result_folder import ResultFolder
from tdsnn.results import Cell, Result

N = 30


def _entry(name: str, model: Linear | None = None, *, twin: str | None = None) -> ModelEntry:
    sha256 = f"{len(name):064x}"
    return ModelEntry(name=name, model=model or Linear(), checkpoint_sha256=sha256, source="path", twin=twin)


def _plan(*extra: Attack) -> Plan:
    specs = [AttackSpec(attack=attack, norm="linf", strengths=(1.0, 2.0)) for attack in extra]
    specs += attack_specs(["pgd"], eps=[1, 2])
    return Plan(dataset="toy", split=split(Linear(), N), n=N, attacks=tuple(specs), batch_size=N)


def _failed(result: Result) -> list[Cell]:
    return [cell for cell in result.cells if cell.error is not None]


@dataclass(frozen=True, kw_only=True)
class _Shaky(Attack):
    """Draws from the global generator, so the gate of determinism refuses it."""

    def run(self, model, x, y, *, eps, norm, task, generator):
        return torch.clamp(x + eps * (torch.rand_like(x) - 0.5), 0, 1)


@dataclass(frozen=True, kw_only=True)
class _BreaksLate(Attack):
    """Keeps the rules on the few images of the gates and leaves the ball afterwards, at one strength."""

    def run(self, model, x, y, *, eps, norm, task, generator):
        return x if len(x) < 8 or eps < 2 / 255 else x + 2 * eps


@dataclass(frozen=True, kw_only=True)
class _Hungry(Attack):
    def run(self, model, x, y, *, eps, norm, task, generator):
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_an_attack_that_its_gate_refuses_costs_its_own_cells(tmp_path: Path) -> None:
    result = run_bench(_plan(_Shaky()), [_entry("toy")], ResultFolder(tmp_path))
    broken = _failed(result)
    assert [(cell.attack, cell.eps_255) for cell in broken if cell.attack != "worst case"] == [
        ("_shaky", 1),
        ("_shaky", 2),
    ]
    assert all("determinism" in cell.error for cell in broken if cell.attack == "_shaky")
    assert [(cell.accuracy, cell.survivors, cell.clean_correct) for cell in broken[:1]] == [(None, None, 22)]
    alone = run_bench(_plan(), [_entry("toy")], ResultFolder(tmp_path / "alone"))
    ours = [cell.survivors for cell in result.cells if cell.attack in ("clean", "pgd")]
    assert ours == [cell.survivors for cell in alone.cells]
    assert (tmp_path / "result.json").is_file()


def test_an_attack_that_leaves_its_ball_costs_the_strength_where_it_does(tmp_path: Path) -> None:
    entries = [_entry("topo", twin="plain"), _entry("plain", Linear(1))]
    result = run_bench(_plan(_BreaksLate()), entries, ResultFolder(tmp_path))
    broken = _failed(result)
    assert {(cell.attack, cell.eps_255) for cell in broken} == {("_breakslate", 2), ("worst case", 2)}
    assert all(cell.accuracy is None and cell.survivors is None for cell in broken)
    assert "ball" in str(broken[0].error)
    places = [(row.attack, row.eps_255) for row in result.comparisons]
    assert places == [("clean", 0), ("_breakslate", 1), ("pgd", 1), ("pgd", 2), ("worst case", 1)]
    assert len(list((tmp_path / "cells").iterdir())) == 2 * 4


def test_out_of_memory_is_an_error_of_the_cell(tmp_path: Path) -> None:
    broken = _failed(run_bench(_plan(_Hungry()), [_entry("toy")], ResultFolder(tmp_path)))
    assert {cell.attack for cell in broken} == {"_hungry", "worst case"}
    assert "out of memory: lower --batch-size" in str(broken[0].error)


def test_a_refused_model_has_no_number_and_the_others_have_theirs(tmp_path: Path) -> None:
    nan = Linear(twist=lambda _x, logits: logits * torch.nan)
    entries = [_entry("broken", nan, twin="plain"), _entry("plain", Linear(1)), _entry("other", Linear(2))]
    result = run_bench(_plan(), entries, ResultFolder(tmp_path))
    assert {cell.model for cell in _failed(result)} == {"broken"}
    assert len(_failed(result)) == 3
    assert all("not finite" in cell.error for cell in _failed(result))
    assert all(cell.clean_correct is None for cell in _failed(result))
    assert ["not finite" in str(model["refused"]) for model in result.models] == [True, False, False]
    assert result.models[0]["gates"] == result.models[0]["masking_signs"] == []
    assert result.comparisons == ()
    arrays = load_file(tmp_path / "samples.safetensors")
    assert {name.partition("/")[0] for name in arrays} == {"indices", "plain", "other"}
    assert json.loads((tmp_path / "result.json").read_text())["cells"][0]["error"]


def test_what_failed_is_tried_again_and_the_rest_is_kept(tmp_path: Path) -> None:
    folder, plan = ResultFolder(tmp_path), _plan(_Hungry())
    first = run_bench(plan, [_entry("toy")], folder)
    again = run_bench(plan, [_entry("toy")], folder)
    assert again.provenance["reused_cells"] == [cell.key for cell in first.cells if cell.error is None]
    assert again.cells == first.cells


def test_settings_of_one_attack_are_rows_of_their_own_and_the_worst_case_joins_them(tmp_path: Path) -> None:
    specs = attack_specs(["pgd:steps=1", "pgd:steps=8,restarts=2", "pgd:norm=l2"], eps=[12])
    plan = replace(_plan(), attacks=specs)
    entries = [_entry("topo", twin="plain"), _entry("plain", Linear(1))]
    result = run_bench(plan, entries, ResultFolder(tmp_path))
    titles = ["clean", "pgd:steps=1", "pgd:steps=8,restarts=2", "pgd:norm=l2"]
    assert [cell.title for cell in result.cells if cell.model == "topo"] == [*titles, "worst case"]
    own = [cell.place for cell in result.cells if cell.model == "topo"]
    assert [row.place for row in result.comparisons] == own
    arrays = load_file(tmp_path / "samples.safetensors")
    weak, strong = arrays["topo/pgd:steps=1/12"], arrays["topo/pgd:steps=8,restarts=2/12"]
    assert (weak != strong).any()
    np.testing.assert_array_equal(arrays["topo/worst case/12"], weak & strong)


def test_the_worst_case_of_each_norm_is_its_own(tmp_path: Path) -> None:
    plan = replace(_plan(), attacks=attack_specs(["pgd", "fgsm", "pgd:norm=l2", "fgsm:norm=l2"], eps=[16]))
    result = run_bench(plan, [_entry("toy")], ResultFolder(tmp_path))
    worst = [cell for cell in result.cells if cell.attack == "worst case"]
    assert [(cell.norm, cell.variant) for cell in worst] == [("l2", "norm=l2"), ("linf", "")]
    arrays = load_file(tmp_path / "samples.safetensors")
    np.testing.assert_array_equal(
        arrays["toy/worst case:norm=l2/16"], arrays["toy/pgd:norm=l2/16"] & arrays["toy/fgsm:norm=l2/16"]
    )


def test_a_radius_beyond_the_farthest_image_is_refused_before_anything_runs() -> None:
    with pytest.raises(UsageError, match=r"\[0, 4\] for l2 on images of 16 values"):
        replace(_plan(), attacks=attack_specs(["pgd:norm=l2"], eps=[1021]))
