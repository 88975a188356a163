"""Plug-ins of packages outside this project, found by their entry points."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from toys import Linear, split

from tdsnn import registry
from tdsnn.attacks._base import ATTACKS, configure
from tdsnn.attacks._spec import attack_specs
from tdsnn.benchmark import plan as plans
from tdsnn.benchmark.plan import ModelEntry, Plan, cell_key
from tdsnn.benchmark.runner import run_bench
from tdsnn.result_folder import ResultFolder

HELPER = "FACTOR = {factor}\n"
ATTACKS_OF = """
from dataclasses import dataclass

import torch

from tdsnn.attacks._base import Attack
from {package}.helper import FACTOR


@dataclass(frozen=True, kw_only=True)
class Up(Attack):
    def run(self, model, x, y, *, eps, norm, task, generator):
        return torch.clamp(x + FACTOR * eps, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Down(Attack):
    def run(self, model, x, y, *, eps, norm, task, generator):
        return torch.clamp(x - FACTOR * eps, 0, 1)
"""
ENTRY_POINTS = "[tdsnn.attacks]\nbrighter = {package}.attacks:Up\ndarker = {package}.attacks:Down\n"


def _install(site: Path, package: str, *, factor: float) -> None:
    """Put a distribution with two attacks in one module where Python finds it."""
    (site / package).mkdir(parents=True, exist_ok=True)
    (site / package / "__init__.py").write_text("")
    (site / package / "helper.py").write_text(HELPER.format(factor=factor))
    (site / package / "attacks.py").write_text(ATTACKS_OF.format(package=package))
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS.format(package=package))


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    site = tmp_path / "site"
    _install(site, "outside_plug_in", factor=1.0)
    monkeypatch.syspath_prepend(site)
    _forget()
    yield site
    _forget()


def _forget() -> None:
    """As in a new process."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "outside_plug_in"]:
        del sys.modules[name]
    for cached in (registry._targets, plans._code, sys.modules["tdsnn.runtime"]._outside):
        cached.cache_clear()


def _plan() -> Plan:
    attacks = attack_specs(["brighter", "darker"], eps=[40])
    return Plan(dataset="toy", split=split(Linear(), 30), n=30, attacks=attacks)


def _entry() -> ModelEntry:
    return ModelEntry(name="toy", model=Linear(), checkpoint_sha256="0" * 64, source="path")


def test_an_attack_has_the_name_that_it_is_registered_under(outside: Path) -> None:
    assert {"brighter", "darker", "pgd"} <= set(ATTACKS.names())
    assert configure("Brighter").name == "brighter"
    assert ATTACKS.module("darker") == "outside_plug_in.attacks"


def test_two_attacks_of_one_module_are_two_rows(outside: Path, tmp_path: Path) -> None:
    result = run_bench(_plan(), [_entry()], ResultFolder(tmp_path))
    assert [cell.attack for cell in result.cells] == ["clean", "brighter", "darker", "worst case"]
    assert len({cell.key for cell in result.cells}) == 4
    arrays = load_file(tmp_path / "samples.safetensors")
    assert (arrays["toy/brighter/40"] != arrays["toy/darker/40"]).any()


def test_a_changed_plug_in_changes_its_cells_and_no_others(outside: Path) -> None:
    def keys() -> tuple[str, str]:
        _forget()
        plan = _plan()
        (pgd,) = attack_specs(["pgd"], eps=[1])
        return cell_key(plan, _entry(), plan.attacks[0], 40), cell_key(plan, _entry(), pgd, 1)

    before = keys()
    assert keys() == before
    _install(outside, "outside_plug_in", factor=0.5)
    after = keys()
    assert after[0] != before[0], "the helper of an attack is part of what it does"
    assert after[1] == before[1]
