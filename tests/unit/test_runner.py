"""The cell loop on models whose survivors are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from toys import Linear, split

from tdsnn.attacks._base import Attack
from tdsnn.bench.plan import Plan, Strike, Subject, cell_key, make_strikes
from tdsnn.bench.runner import run_bench, total_images
from tdsnn.errors import GateError, IntegrityError, UsageError
from tdsnn.results import ResultFolder
from tdsnn.stats import paired_difference

N = 30


def _subject(name: str, seed: int = 0, *, twin: str | None = None) -> Subject:
    return Subject(name=name, model=Linear(seed), checkpoint_sha256=f"{seed:064x}", source="path", twin=twin)


def _plan(*attacks: str, eps: tuple[float, ...] = (0.5, 2.0), n: int = N, batch_size: int = 7) -> Plan:
    model = Linear()
    return Plan(
        dataset="toy",
        split=split(model, N),
        n=n,
        strikes=make_strikes(attacks or ("pgd",), eps_255=eps),
        batch_size=batch_size,
    )


def _numbers(folder: Path) -> dict[str, object]:
    document = json.loads((folder / "result.json").read_text())
    del document["provenance"]
    return document


def test_cells_agree_with_a_direct_attack_and_with_the_stored_verdicts(tmp_path: Path) -> None:
    plan, subject = _plan(), _subject("toy")
    done: list[int] = []
    result = run_bench(
        plan, [subject], ResultFolder(tmp_path), progress=lambda images, _label: done.append(images)
    )
    assert sum(done) == total_images(plan, [subject])
    assert [(cell.attack, cell.eps_255) for cell in result.cells] == [("clean", 0), ("pgd", 0.5), ("pgd", 2)]
    x, y = plan.load(range(N))
    arrays = load_file(tmp_path / "samples.safetensors")
    clean = result.cells[0].accuracy
    assert clean is not None
    assert clean.value == pytest.approx(100 * arrays["toy/clean/0"].mean())
    for cell, strike in zip(result.cells[1:], plan.strikes, strict=True):
        outcome = strike.attack.perturb(subject.model, x, y, eps=strike.eps, indices=range(N))
        np.testing.assert_array_equal(arrays[f"toy/pgd/{cell.eps_255:g}"], outcome.robust.numpy())
        assert cell.survivors == outcome.survivors
        assert cell.accuracy is not None
        assert cell.accuracy.n == N


def test_no_strength_gives_exactly_the_clean_accuracy(tmp_path: Path) -> None:
    clean, none = run_bench(_plan(eps=(0.0,)), [_subject("toy")], ResultFolder(tmp_path)).cells
    assert clean.accuracy == none.accuracy


def test_two_runs_and_two_batch_sizes_give_the_same_numbers(tmp_path: Path) -> None:
    for name, size in (("a", 7), ("b", 7), ("c", 30)):
        run_bench(_plan(batch_size=size), [_subject("toy")], ResultFolder(tmp_path / name))
    assert _numbers(tmp_path / "a") == _numbers(tmp_path / "b")
    verdicts = [load_file(tmp_path / name / "samples.safetensors") for name in "ac"]
    for key, values in verdicts[0].items():
        np.testing.assert_array_equal(values, verdicts[1][key])


def test_a_stopped_run_goes_on_at_the_next_cell(tmp_path: Path) -> None:
    plan, folder = _plan(), ResultFolder(tmp_path / "stopped")

    def stop(images: int, label: str) -> None:
        if images and label.endswith("pgd 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_bench(plan, [_subject("toy")], folder, progress=stop)
    assert not (folder.folder / "result.json").exists()
    continued = run_bench(plan, [_subject("toy")], folder)
    run_bench(plan, [_subject("toy")], ResultFolder(tmp_path / "whole"))
    assert len(continued.provenance["reused_cells"]) == 2
    assert _numbers(folder.folder) == _numbers(tmp_path / "whole")


def test_a_damaged_cell_stops_the_run_and_fresh_replaces_it(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path)
    run_bench(_plan(), [_subject("toy")], folder)
    before = _numbers(tmp_path)
    next((tmp_path / "cells").iterdir()).write_bytes(b"no cell")
    with pytest.raises(IntegrityError):
        run_bench(_plan(), [_subject("toy")], folder)
    again = run_bench(_plan(), [_subject("toy")], folder, fresh=True)
    assert again.provenance["reused_cells"] == []
    assert _numbers(tmp_path) == before


def test_a_key_changes_with_everything_that_affects_the_numbers() -> None:
    plan, subject = _plan(), _subject("toy")
    weak, strong = plan.strikes
    other_split = replace(plan.split, digest="1" * 64)
    more_steps = make_strikes(["pgd"], eps_255=[0.5], steps=20)[0]
    keys = [
        cell_key(plan, subject, None),
        cell_key(plan, subject, weak),
        cell_key(plan, subject, strong),
        cell_key(plan, subject, more_steps),
        cell_key(replace(plan, seed=1), subject, weak),
        cell_key(replace(plan, n=20), subject, weak),
        cell_key(replace(plan, batch_size=8), subject, weak),
        cell_key(replace(plan, split=other_split), subject, weak),
        cell_key(plan, replace(subject, checkpoint_sha256="f" * 64), weak),
        cell_key(plan, replace(subject, model=Linear(1)), weak),
    ]
    assert len(set(keys)) == len(keys)
    assert cell_key(plan, replace(subject, name="other"), weak) == keys[1]


def test_the_worst_case_is_the_union_of_the_attacks(tmp_path: Path) -> None:
    result = run_bench(_plan("fgsm", "pgd", "gaussian"), [_subject("toy")], ResultFolder(tmp_path))
    arrays = load_file(tmp_path / "samples.safetensors")
    worst = [cell for cell in result.cells if cell.attack == "worst case"]
    assert [cell.eps_255 for cell in worst] == [0.5, 2.0]
    for cell in worst:
        union = arrays[f"toy/fgsm/{cell.eps_255:g}"] & arrays[f"toy/pgd/{cell.eps_255:g}"]
        assert cell.survivors == union.sum()
        np.testing.assert_array_equal(arrays[f"toy/worst case/{cell.eps_255:g}"], union)


def test_a_topographic_model_is_compared_with_its_twin(tmp_path: Path) -> None:
    subjects = [_subject("topo", 0, twin="plain"), _subject("plain", 1), _subject("third", 2)]
    result = run_bench(_plan(), subjects, ResultFolder(tmp_path))
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
    lone = run_bench(_plan(), subjects[1:], ResultFolder(tmp_path))
    assert {(row.model, row.twin) for row in lone.comparisons} == {("plain", "third")}


class _BreaksLate(Attack):
    """Keeps the rules on the few images of the gates and leaves the ball afterwards."""

    def run(self, model, x, y, *, eps, norm, generator):
        return x if len(x) < 8 else x + 2 * eps


def test_a_refused_cell_is_an_error_and_never_a_number(tmp_path: Path) -> None:
    plan = _plan("pgd", batch_size=30)
    strikes = (*plan.strikes, Strike(attack=_BreaksLate(), eps_255=2.0))
    subjects = [_subject("topo", twin="plain"), _subject("plain", 1)]
    result = run_bench(replace(plan, strikes=strikes), subjects, ResultFolder(tmp_path))
    broken = [cell for cell in result.cells if cell.error is not None]
    assert {cell.attack for cell in broken} == {"test_runner", "worst case"}
    assert all(cell.accuracy is None and cell.survivors is None for cell in broken)
    assert "ball" in str(broken[0].error)
    assert len(result.comparisons) == 3
    assert len(list((tmp_path / "cells").iterdir())) == 2 * 3


def test_a_model_that_a_gate_refuses_gives_no_result(tmp_path: Path) -> None:
    broken = replace(_subject("toy"), model=Linear(twist=lambda _x, logits: logits * torch.nan))
    with pytest.raises(GateError):
        run_bench(_plan(), [broken], ResultFolder(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_provenance_says_what_was_used(tmp_path: Path) -> None:
    result = run_bench(_plan(), [_subject("toy")], ResultFolder(tmp_path))
    used = result.provenance["environment"]
    assert used["threads"] == torch.get_num_threads()
    assert result.provenance["sources"] == {"toy": "path"}
    assert set(result.provenance["cell_wall_s"]) == {cell.key for cell in result.cells}
    (model,) = result.models
    assert model["attack_surrogate"] is None
    assert result.settings["data_digest"] == "0" * 64


@pytest.mark.parametrize("n", [0, -1, N + 1])
def test_a_number_of_images_out_of_range_is_refused(n: int) -> None:
    with pytest.raises(UsageError, match=rf"1\.\.{N}") as caught:
        _plan(n=n)
    assert caught.value.exit_code == 2


def test_strikes_follow_the_request() -> None:
    assert [strike.eps_255 for strike in make_strikes(["pgd"])] == [0.5, 1, 2, 4, 8]
    assert [strike.eps_255 for strike in make_strikes(["gaussian"])] == [8, 16, 32, 64]
    both = make_strikes(["pgd", "fgsm", "pgd"], eps_255=[8, 1, 8], steps=3)
    assert [(s.attack.name, s.eps_255) for s in both] == [("pgd", 1), ("pgd", 8), ("fgsm", 1), ("fgsm", 8)]
    assert both[0].attack.settings["steps"] == 3
    assert both[1].eps == pytest.approx(8 / 255)
    for eps in (-1, 256, float("nan")):
        with pytest.raises(UsageError, match=r"0\.\.255"):
            make_strikes(["pgd"], eps_255=[eps])
    with pytest.raises(UsageError, match="takes steps"):
        make_strikes(["fgsm"], steps=3)
