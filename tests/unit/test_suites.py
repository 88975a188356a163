"""Suites: frozen files, and attacks that are spent on survivors."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from toys import Linear, split

from tdsnn import paths
from tdsnn.attacks._base import Attack
from tdsnn.attacks._spec import attack_specs
from tdsnn.benchmark.api import prepare
from tdsnn.benchmark.plan import ModelEntry, Plan
from tdsnn.benchmark.runner import run_bench
from tdsnn.benchmark.suites import read_suite, suite_names
from tdsnn.errors import IntegrityError, UsageError
from tdsnn.result_folder import ResultFolder
from tdsnn.results import Cell
from tdsnn.table import WORST_CASE

N = 30
SUITE = """
summary = "Two attacks."
n = 5
eps = [1, "8/255"]
[[attacks]]
attack = "fgsm"
[[attacks]]
attack = "pgd:steps=3"
on = "survivors"
"""


def entry(seed: int = 0) -> ModelEntry:
    return ModelEntry(name="toy", model=Linear(seed), checkpoint_sha256=f"{seed:064x}", source="path")


def plan(*late: str, eps: tuple[float, ...] = (2.0, 8.0)) -> Plan:
    specs = attack_specs(["fgsm"], eps=eps)
    specs += tuple(replace(spec, survivors_only=True) for spec in attack_specs(late, eps=eps))
    return Plan(dataset="toy", split=split(Linear(), N), n=N, attacks=specs, batch_size=7)


@pytest.mark.parametrize("name", suite_names())
def test_every_official_suite_is_locked_and_its_attacks_can_be_had(name: str) -> None:
    suite = read_suite(name)
    assert suite.official
    for one in suite.suite.attacks:
        attack_specs([one.attack], eps=suite.suite.eps)


def test_an_edited_suite_is_refused_with_the_digest_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "benchmarks" / "suites"
    shutil.copytree(paths.bundled("benchmarks", "suites"), folder)
    expected = read_suite("smoke-v1").sha256
    monkeypatch.setattr(paths, "bundled", lambda *parts: tmp_path.joinpath(*parts))
    assert read_suite("smoke-v1").sha256 == expected
    edited = folder / "smoke-v1.toml"
    edited.write_text(edited.read_text().replace("8/255", "4/255"))
    with pytest.raises(IntegrityError, match=expected) as refused:
        read_suite("smoke-v1")
    assert refused.value.exit_code == 3
    # By its path it is a suite of one's own, and says so.
    own = read_suite(edited)
    assert (own.official, own.name) == (False, str(edited))


def test_a_suite_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)
    found = read_suite(str(path))
    assert found.sha256 == hashlib.sha256(SUITE.encode()).hexdigest()
    assert [one.on for one in found.suite.attacks] == ["all", "survivors"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("standard-v0", None, "no suite called 'standard-v0'"),
        ("./none.toml", None, "no suite file"),
        ("mine.toml", "n = [", "is not TOML"),
        ("mine.toml", SUITE.replace("eps =", "epz ="), "unknown key 'epz'"),
        ("mine.toml", SUITE.replace("n = 5", "n = 0"), "'n'"),
        ("mine.toml", SUITE.replace('"survivors"', '"some"'), "'all' or 'survivors'"),
        ("mine.toml", 'summary = "None."\nattacks = []', "at least 1"),
    ],
)
def test_what_is_no_suite(
    name: str, text: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path(name).write_text(text)
    with pytest.raises(UsageError, match=message):
        read_suite(name)


def test_a_suite_names_its_own_attacks() -> None:
    with pytest.raises(UsageError, match="says itself"):
        prepare(
            "tsresnet18",
            attacks="fgsm",
            eps=(),
            suite="smoke-v1",
            n=None,
            device="cpu",
            seed=None,
            batch_size=None,
            steps=None,
            out=None,
            note=print,
        )


def test_an_attack_on_survivors_only_gets_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attacked are the images that the single step of the same or a smaller radius left; never the others."""
    entered: list[int] = []
    perturb = Attack.perturb

    def watching(attack, *arguments, clean=None, **options):
        if attack.name == "pgd" and clean is not None:
            entered.append(int(clean.sum()))
        return perturb(attack, *arguments, clean=clean, **options)

    monkeypatch.setattr(Attack, "perturb", watching)
    result = run_bench(plan("pgd:steps=5"), [entry()], ResultFolder(tmp_path))
    cells = {(cell.attack, cell.eps_255): cell for cell in result.cells}
    stored = load_file(tmp_path / "samples.safetensors")
    fgsm = {eps: stored[f"toy/fgsm/{eps}"] for eps in (2, 8)}
    late = {eps: stored[f"toy/pgd:steps=5/{eps}"] for eps in (2, 8)}
    assert cells["pgd", 2].entered == fgsm[2].sum()
    assert cells["pgd", 8].entered == np.minimum.reduce([fgsm[2], fgsm[8], late[2]]).sum()
    assert sum(entered) == fgsm[2].sum() + cells["pgd", 8].entered
    assert cells["fgsm", 2].entered is None
    for eps in (2, 8):
        # What is left after the last attack is what is left after all of them.
        assert cells[WORST_CASE, eps].survivors == cells["pgd", eps].survivors == late[eps].sum()


def test_the_survivors_are_those_of_the_attacks_on_all_images(tmp_path: Path) -> None:
    """Attacks that are deterministic leave the same, whatever they are given."""
    alone = attack_specs(["fgsm", "pgd:random_start=false"], eps=(2.0, 8.0))
    together = run_bench(replace(plan(), attacks=alone), [entry()], ResultFolder(tmp_path / "a"))
    after = run_bench(plan("pgd:random_start=false"), [entry()], ResultFolder(tmp_path / "b"))

    def left(result: object) -> list[int | None]:
        return [cell.survivors for cell in result.cells if cell.attack == WORST_CASE]  # type: ignore[attr-defined]

    assert left(together) == left(after)


def test_other_survivors_are_another_cell_and_the_same_are_taken_from_the_folder(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path)
    first = run_bench(plan("pgd:steps=5"), [entry()], folder)
    again = run_bench(plan("pgd:steps=5"), [entry()], folder)
    assert len(again.provenance["reused_cells"]) == 5
    assert first.cells == again.cells
    alone = replace(plan("pgd:steps=5"), attacks=plan("pgd:steps=5").attacks[1:])
    assert _late(first).key != _late(run_bench(alone, [entry()], folder)).key


def test_a_failed_attack_leaves_no_worst_case_but_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    perturb = Attack.perturb

    def leaving(attack, model, x, y, **options):
        found = perturb(attack, model, x, y, **options)
        if attack.settings.get("steps") == 4:
            found.x_adv.add_(1e-3 * (options["eps"] > 0))
            attack._check_candidates(found.x_adv, x, eps=options["eps"], norm="linf")
        return found

    monkeypatch.setattr(Attack, "perturb", leaving)
    result = run_bench(plan("pgd:steps=4", "pgd:steps=5", eps=(8.0,)), [entry()], ResultFolder(tmp_path))
    by_title = {cell.title: cell for cell in result.cells}
    assert "left its linf ball" in str(by_title["pgd:steps=4"].error)
    assert by_title["pgd:steps=5"].survivors is not None
    assert by_title[WORST_CASE].error == "no number from pgd:steps=4"


def _late(result: object) -> Cell:
    cells: list[Cell] = result.cells  # type: ignore[attr-defined]
    return next(cell for cell in cells if cell.variant == "steps=5" and cell.eps_255 == 8)
