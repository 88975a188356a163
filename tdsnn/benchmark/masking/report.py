"""The masking report of a suite: every test once, in the order of their numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from tdsnn.benchmark.masking import gradients, search, surrogates
from tdsnn.benchmark.masking._base import Finding, Probe, judged, not_made
from tdsnn.processes import ALONE, Team
from tdsnn.results import Cell

Test = Callable[[Probe], Finding | Sequence[Finding]]
PROBES: tuple[Test, ...] = (
    gradients.same_twice,
    gradients.gradient_is_there,
    gradients.same_gradient_on_both_paths,
    search.more_steps_find_no_more,
    search.chance_finds_no_more,
    search.nothing_survives_flat_grey,
    search.everything_falls_without_bounds,
    search.nothing_found_is_lost,
    gradients.stable_loss,
    surrogates.surrogates_agree,
    gradients.gradient_is_faithful,
    surrogates.others_find_no_more,
    surrogates.adaptive_surrogate_finds_no_more,
)
"""Tests that look at the model; the others look at the cells."""
_FROM_CELLS = {
    "M4": ("single step", "No single step and iterative attack of one radius."),
    "M6": ("without gradients", "The attack square was not made on survivors."),
    "M8": ("stronger attack", "No attack of two radii."),
    "M17": ("normal training", "Trained with attacks, or no iterative attack of 8/255 or more."),
}
"""What is said where the cells have nothing to say."""


def masking_report(
    probe: Probe,
    measured: Sequence[Finding],
    cells: Sequence[Cell],
    *,
    team: Team = ALONE,
    progress: Callable[[str], None] = lambda test: None,
) -> tuple[Finding, ...]:
    """All tests of one model.

    Args:
        probe: what tests may attack.
        measured: what :func:`from_cells` said.
        cells: of this model.
        team: the processes that share the tests.
        progress: told the name of each test before it is made.
    """

    def made_by(test: Test) -> Sequence[Finding]:
        progress(test.__name__.replace("_", " "))
        one = test(probe)
        return [one] if isinstance(one, Finding) else one

    found = [*measured, *chain.from_iterable(team.shared(PROBES, made_by)), _within_bounds(cells)]
    made = {one.test for one in found}
    found += [not_made(test, *words) for test, words in _FROM_CELLS.items() if test not in made]
    return tuple(sorted(found, key=lambda one: int(one.test.removeprefix("M"))))


def _within_bounds(cells: Sequence[Cell]) -> Finding:
    """M18: no candidate left its ball or [0, 1], or was no number; each was checked as it was made."""
    failed = [cell for cell in cells if cell.error is not None]
    reason = f" The first: {failed[0].error}" if failed else ""
    return judged(
        "M18",
        "within bounds",
        figure=len(failed),
        limit=0,
        unit="cells",
        message=f"{len(failed)} of {len(cells)} cells have no number.{reason}",
    )
