"""The cell loop on models whose survivors are known."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from toys import Linear, split

from tdsnn.attacks._base import Attack
from tdsnn.attacks._spec import attack_specs
from tdsnn.benchmark.plan import ModelEntry, Plan, cell_key
from tdsnn.benchmark.runner import run_bench, total_images
from tdsnn.errors import IntegrityError, UsageError
from tdsnn.result_folder import ResultFolder
from tdsnn.stats import paired_difference

N = 30


def _entry(name: str, seed: int = 0, *, twin: str | None = None) -> ModelEntry:
    return ModelEntry(
        name=name, model=Linear(seed), checkpoint_sha256=f"{seed:064x}", source="path", twin=twin
    )


def _plan(*attacks: str, eps: tuple[float, ...] = (0.5, 2.0), n: int = N, batch_size: int = 7) -> Plan:
    model = Linear()
    return Plan(
        dataset="toy",
        split=split(model, N),
        n=n,
        attacks=attack_specs(attacks or ("pgd",), eps=eps),
        batch_size=batch_size,
    )


def _numbers(folder: Path) -> dict[str, object]:
    document = json.loads((folder / "result.json").read_text())
    del document["provenance"]
    return document


def test_cells_agree_with_a_direct_attack_and_with_the_stored_verdicts(tmp_path: Path) -> None:
    plan, entry = _plan(), _entry("toy")
    done: list[int] = []
    result = run_bench(
        plan, [entry], ResultFolder(tmp_path), progress=lambda images, _label: done.append(images)
    )
    assert sum(done) == total_images(plan, [entry])
    assert [(cell.attack, cell.eps_255) for cell in result.cells] == [("clean", 0), ("pgd", 0.5), ("pgd", 2)]
    x, y = plan.load(range(N))
    arrays = load_file(tmp_path / "samples.safetensors")
    clean = result.cells[0].accuracy
    assert clean is not None
    assert clean.value == pytest.approx(100 * arrays["toy/clean/0"].mean())
    (spec,) = plan.attacks
    for cell, strength in zip(result.cells[1:], spec.strengths, strict=True):
        outcome = spec.attack.perturb(entry.model, x, y, eps=spec.eps(strength), indices=range(N))
        np.testing.assert_array_equal(arrays[f"toy/pgd/{cell.eps_255:g}"], outcome.robust.numpy())
        assert cell.survivors == outcome.robust.sum()
        assert cell.accuracy is not None
        assert cell.accuracy.n == N


def test_no_strength_gives_exactly_the_clean_accuracy(tmp_path: Path) -> None:
    clean, none = run_bench(_plan(eps=(0.0,)), [_entry("toy")], ResultFolder(tmp_path)).cells
    assert clean.accuracy == none.accuracy


def test_two_runs_and_two_batch_sizes_give_the_same_numbers(tmp_path: Path) -> None:
    for name, size in (("a", 7), ("b", 7), ("c", 30)):
        run_bench(_plan(batch_size=size), [_entry("toy")], ResultFolder(tmp_path / name))
    assert _numbers(tmp_path / "a") == _numbers(tmp_path / "b")
    verdicts = [load_file(tmp_path / name / "samples.safetensors") for name in "ac"]
    for key, values in verdicts[0].items():
        np.testing.assert_array_equal(values, verdicts[1][key])


def test_a_stopped_run_goes_on_at_the_next_batch(tmp_path: Path) -> None:
    plan, folder = _plan(), ResultFolder(tmp_path / "stopped")

    def stop(images: int, label: str) -> None:
        if images and label.endswith("pgd 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_bench(plan, [_entry("toy")], folder, progress=stop)
    assert not (folder.folder / "result.json").exists()
    model = Linear()
    continued = run_bench(plan, [replace(_entry("toy"), model=model)], folder)
    run_bench(plan, [_entry("toy")], ResultFolder(tmp_path / "whole"))
    assert len(continued.provenance["reused_cells"]) == 2
    assert continued.provenance["resumed_cells"] == [continued.cells[-1].key]
    assert _numbers(folder.folder) == _numbers(tmp_path / "whole")


@pytest.mark.parametrize("batches", range(1, 6))
def test_whatever_batch_a_run_is_killed_in_no_batch_before_it_is_judged_again(
    batches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed within a batch, not between two: what was finished is then on disk already."""
    plan, folder = _plan(eps=(2.0,)), ResultFolder(tmp_path / "killed")
    attacked: list[range] = []
    perturb = Attack.perturb

    def counting(attack, model, x, y, *, indices, **options):
        if len(x) == len(indices) and isinstance(indices, range) and options["eps"] != 0:
            attacked.append(indices)
        if len(attacked) == batches + 2:
            raise RuntimeError("killed")
        return perturb(attack, model, x, y, indices=indices, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Attack, "perturb", counting)
        # Two of the calls are those of the gates.
        with pytest.raises(RuntimeError, match="killed"):
            run_bench(plan, [_entry("toy")], folder)
    monkeypatch.setattr(Attack, "perturb", counting)
    attacked[:] = [range(0)] * 10
    run_bench(plan, [_entry("toy")], folder)
    assert attacked[12:] == plan.batches()[batches - 1 :]
    run_bench(plan, [_entry("toy")], ResultFolder(tmp_path / "whole"))
    assert _numbers(folder.folder) == _numbers(tmp_path / "whole")


def test_gates_are_not_run_again_for_stored_cells_but_their_measurements_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, folder = _plan(), ResultFolder(tmp_path)
    first = run_bench(plan, [_entry("toy")], folder)
    monkeypatch.setattr("tdsnn.benchmark.measure.check_model", None)
    monkeypatch.setattr("tdsnn.benchmark.measure.check_attack", None)
    again = run_bench(plan, [_entry("toy")], folder)
    assert again.models == first.models
    assert [gate["name"] for gate in first.models[0]["gates"]][-2:] == ["determinism of pgd", "eps 0 of pgd"]
    with pytest.raises(TypeError):
        run_bench(plan, [_entry("toy", 1)], folder)


def test_a_damaged_cell_stops_the_run_and_is_replaced_alone_or_with_all(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path)
    cells = len(run_bench(_plan(), [_entry("toy")], folder).cells)
    before, damaged = _numbers(tmp_path), next((tmp_path / "cells").iterdir())
    damaged.write_bytes(b"no cell")
    with pytest.raises(IntegrityError) as refused:
        run_bench(_plan(), [_entry("toy")], folder)
    subprocess.run(refused.value.hint.rpartition(": ")[2], shell=True, check=True)
    mended = run_bench(_plan(), [_entry("toy")], folder)
    assert len(mended.provenance["reused_cells"]) == cells - 1
    assert _numbers(tmp_path) == before
    damaged.write_bytes(b"no cell")
    again = run_bench(_plan(), [_entry("toy")], folder, fresh=True)
    assert again.provenance["reused_cells"] == []
    assert _numbers(tmp_path) == before


def test_a_key_changes_with_everything_that_affects_the_numbers() -> None:
    plan, entry = _plan(), _entry("toy")
    (spec,) = plan.attacks
    other_split = replace(plan.split, digest="1" * 64)
    (more_steps,) = attack_specs(["pgd"], eps=[0.5], steps=20)
    (l2,) = attack_specs(["pgd:norm=l2"], eps=[0.5])
    keys = [
        cell_key(plan, entry),
        cell_key(plan, entry, spec, 0.5),
        cell_key(plan, entry, spec, 2.0),
        cell_key(plan, entry, more_steps, 0.5),
        cell_key(plan, entry, l2, 0.5),
        cell_key(replace(plan, seed=1), entry, spec, 0.5),
        cell_key(replace(plan, n=20), entry, spec, 0.5),
        cell_key(replace(plan, batch_size=8), entry, spec, 0.5),
        cell_key(replace(plan, split=other_split), entry, spec, 0.5),
        cell_key(plan, replace(entry, checkpoint_sha256="f" * 64), spec, 0.5),
        cell_key(plan, replace(entry, model=Linear(1)), spec, 0.5),
    ]
    assert len(set(keys)) == len(keys)
    assert cell_key(plan, replace(entry, name="other"), spec, 0.5) == keys[1]


def test_the_worst_case_is_the_union_of_the_attacks(tmp_path: Path) -> None:
    result = run_bench(_plan("fgsm", "pgd", "gaussian"), [_entry("toy")], ResultFolder(tmp_path))
    arrays = load_file(tmp_path / "samples.safetensors")
    worst = [cell for cell in result.cells if cell.attack == "worst case"]
    assert [cell.eps_255 for cell in worst] == [0.5, 2.0]
    for cell in worst:
        union = arrays[f"toy/fgsm/{cell.eps_255:g}"] & arrays[f"toy/pgd/{cell.eps_255:g}"]
        assert cell.survivors == union.sum()
        np.testing.assert_array_equal(arrays[f"toy/worst case/{cell.eps_255:g}"], union)


def test_a_topographic_model_is_compared_with_its_twin(tmp_path: Path) -> None:
    entries = [_entry("topo", 0, twin="plain"), _entry("plain", 1), _entry("third", 2)]
    result = run_bench(_plan(), entries, ResultFolder(tmp_path))
    arrays = load_file(tmp_path / "samples.safetensors")
    assert [(row.attack, row.eps_255) for row in result.comparisons] == [
        ("clean", 0),
        ("pgd", 0.5),
        ("pgd", 2),
    ]
    for row in result.comparisons:
        place = f"{row.attack}/{row.eps_255:g}"
        expected = paired_difference(arrays[f"topo/{place}"], arrays[f"plain/{place}"])
        assert (row.model, row.twin) == ("topo", "plain")
        assert row.difference.value == pytest.approx(100 * expected.difference)
        assert row.difference.low == pytest.approx(100 * expected.interval.low)
        assert row.p_mcnemar == expected.p_value
        assert row.p_mcnemar <= row.p_holm <= 3 * row.p_mcnemar or row.p_holm == 1
    lone = run_bench(_plan(), entries[1:], ResultFolder(tmp_path))
    assert {(row.model, row.twin) for row in lone.comparisons} == {("plain", "third")}


def test_provenance_says_what_was_used(tmp_path: Path) -> None:
    result = run_bench(_plan(), [_entry("toy")], ResultFolder(tmp_path))
    used = result.provenance["environment"]
    assert used["threads"] == torch.get_num_threads()
    assert result.provenance["sources"] == {"toy": "path"}
    assert set(result.provenance["cell_wall_s"]) == {cell.key for cell in result.cells}
    (model,) = result.models
    assert "not known for toys.Linear" in model["attack_surrogate"]
    assert result.settings["data_digest"] == "0" * 64


@pytest.mark.parametrize("n", [0, -1, N + 1])
def test_a_number_of_images_out_of_range_is_refused(n: int) -> None:
    with pytest.raises(UsageError, match=rf"1\.\.{N}") as caught:
        _plan(n=n)
    assert caught.value.exit_code == 2


def test_results_without_a_folder_of_their_own_share_cells(cache: Path) -> None:
    """An attack that one table has is not made again for another."""
    one, both, entries = _plan("fgsm"), _plan("fgsm", "pgd"), [_entry("a")]
    first = run_bench(one, entries, one.default_folder(entries))
    second = run_bench(both, entries, both.default_folder(entries))
    assert second.provenance["reused_cells"] == [cell.key for cell in first.cells]
    assert len(list((cache / "bench").glob("*/result.json"))) == 2
