"""Pre-optimised sheets: units exchange places within small squares until those that respond alike lie close.

The procedure of TDANN (Margalit et al. 2024), which TDSNN (arXiv 2508.04270) adopts: the responses are those
of an auxiliary network without spatial loss, and only the positions are kept. Two things differ: a round
visits squares that tile the sheet instead of one square at a time, and every round draws anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from tdsnn.errors import GateError, IntegrityError, UsageError
from tdsnn.kernels.swaps import swap_places
from tdsnn.progress import Progress, silent
from tdsnn.runtime import fp32_products
from tdsnn.topography.clusters import MIN_UNITS, sample_clusters
from tdsnn.topography.correlation import pair_correlation
from tdsnn.topography.sheets import CorticalSheet

PREPARATION = "pre-optimised"
_BATCH = 64
"""Squares that are worked on at once; 64 of 500 units take 64 MB per matrix."""
_PROBES, _PROBE_UNITS = 64, 64
"""Squares, and units in each, on which the alignment is measured; they are the same places all the time."""
_POINTS = 20
"""Points of the alignment curve after the first."""
_TRIES = 20
"""Offsets to try before a sheet counts as too sparse."""


@dataclass(frozen=True, kw_only=True)
class PositionState:
    """A search between two rounds: all that is needed to go on."""

    sites: Tensor
    """(U,) int64, unit u lies where unit sites[u] lay at first."""
    rounds: int = 0
    attempts: int = 0
    accepted: int = 0
    alignment: tuple[tuple[float, float], ...] = ()
    """(attempts per unit, mean over squares of Pearson's r between correlation and proximity)."""


class PositionSearch:
    """Search for the positions of one sheet, round by round; each round follows from the state and the seed.

    Args:
        sheet: where the units lie at first.
        rates: (S, U) responses of the units to S stimuli, on the device that shall do the work.
        attempts_per_unit: exchanges to try, over the units; the last round is finished.
        steps_per_square: exchanges to try in one square before the next round.
        max_units: units of a square that may take part together; fuller squares are divided at random.
        seed: decides squares and pairs.
        compiled: whether the compiled operator may run.

    Raises:
        GateError: responses that are not finite, or no unit that answers two stimuli differently.
        UsageError: responses of another form, or a number out of range.
    """

    def __init__(
        self,
        sheet: CorticalSheet,
        rates: Tensor,
        *,
        attempts_per_unit: float = 100.0,
        steps_per_square: int = 500,
        max_units: int = 500,
        seed: int,
        compiled: bool,
    ) -> None:
        if attempts_per_unit <= 0 or steps_per_square < 1 or max_units < MIN_UNITS:
            raise UsageError(
                f"A position search needs attempts and at least {MIN_UNITS} units in a square, not "
                f"{attempts_per_unit:g} attempts per unit, {steps_per_square} per square, {max_units} units."
            )
        self.sheet = sheet
        self.budget = max(1, round(attempts_per_unit * len(sheet.positions)))
        """Attempts in all."""
        self._steps, self._max_units = steps_per_square, max_units
        self._seed, self._compiled = seed, compiled
        self._scores = _scores(sheet, rates)
        self._probes = sample_clusters(
            sheet, count=_PROBES, units=_PROBE_UNITS, generator=self._generator("probes")
        )

    def start(self) -> PositionState:
        """The sheet as it is."""
        sites = torch.arange(len(self.sheet.positions))
        return PositionState(sites=sites, alignment=((0.0, self.alignment(sites)),))

    def finished(self, state: PositionState) -> bool:
        """Whether the attempts are used up."""
        return state.attempts >= self.budget

    @fp32_products(tf32=False)
    def advance(self, state: PositionState) -> PositionState:
        """One round.

        Raises:
            UsageError: no square holds enough units.
            IntegrityError: the state belongs to another sheet.
        """
        if not torch.equal(state.sites.sort().values, torch.arange(len(self.sheet.positions))):
            raise IntegrityError(
                f"The saved search does not place the {len(self.sheet.positions)} units of "
                f"{self.sheet.layer}, each once.",
                hint="Start the search anew.",
            )
        generator = self._generator(f"round {state.rounds}")
        squares = self._draw(state.sites, generator)
        # The last entry stands for the units that fill up smaller squares.
        sites, accepted = F.pad(state.sites, (0, 1)), 0
        for first in range(0, len(squares), _BATCH):
            accepted += self._exchange(sites, squares[first : first + _BATCH], generator)
        attempts = state.attempts + len(squares) * self._steps
        sites, curve = sites[:-1], state.alignment
        if attempts * _POINTS // self.budget > state.attempts * _POINTS // self.budget:
            curve = (*curve, (attempts / len(sites), self.alignment(sites)))
        return PositionState(
            sites=sites,
            rounds=state.rounds + 1,
            attempts=attempts,
            accepted=state.accepted + accepted,
            alignment=curve,
        )

    def alignment(self, sites: Tensor) -> float:
        """Mean over squares of Pearson's r between correlation and proximity, silent units aside."""
        scores = self._scores[sites.argsort()[self._probes.units].to(self._scores.device)]
        near = self._probes.proximity.to(scores.device)
        found = pair_correlation(scores @ scores.mT, near, floor=0.5, with_gradient=False)
        return float(found.correlation.sum() / found.defined.sum().clamp_min(1))

    def result(self, state: PositionState, source: Mapping[str, Any] | None = None) -> CorticalSheet:
        """The sheet with its units where the state says, and a log of the search.

        Args:
            source: what the responses came from, e.g. stimuli and model, as JSON values for the log.
        """
        log = {
            **(source or {}),
            "seed": self._seed,
            "steps_per_square": self._steps,
            "max_units": self._max_units,
            "rounds": state.rounds,
            "attempts": state.attempts,
            "accepted": state.accepted,
            "alignment": [[round(spent, 3), round(r, 6)] for spent, r in state.alignment],
        }
        positions = self.sheet.positions[state.sites]
        return replace(self.sheet, positions=positions, preparation=PREPARATION, log=log)

    def _draw(self, sites: Tensor, generator: torch.Generator) -> list[Tensor]:
        side = self.sheet.neighbourhood_mm
        for _ in range(_TRIES):
            positions = self.sheet.positions[sites]
            squares = draw_squares(positions, side, max_units=self._max_units, generator=generator)
            if squares:
                return squares
        raise UsageError(
            f"No square of {side:.3g} mm on the sheet of {self.sheet.layer} holds {MIN_UNITS} units, so none "
            f"can exchange places.",
            hint="Take a layer with more channels, or leave its sheet retinotopic.",
        )

    def _exchange(self, sites: Tensor, squares: list[Tensor], generator: torch.Generator) -> int:
        """Exchange units within the squares, in place; how many exchanges were kept."""
        device = self._scores.device
        units = pad_sequence(squares, batch_first=True, padding_value=len(sites) - 1)
        pairs = _draw_pairs(torch.tensor([len(square) for square in squares]), self._steps, generator)
        scores = self._scores[units.to(device)]
        placed = self.sheet.positions[sites[units]].to(device)
        proximity = self.sheet.proximity(placed)
        found = swap_places(scores @ scores.mT, proximity, pairs.to(device), compiled=self._compiled)
        sites[units] = sites[units].gather(1, found.places.cpu())
        return int(found.accepted.sum())

    def _generator(self, purpose: str) -> torch.Generator:
        words = f"positions:{self._seed}:{self.sheet.layer}:{purpose}"
        return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(words.encode()).digest()[:7]))


def optimise_positions(
    sheet: CorticalSheet,
    rates: Tensor,
    *,
    attempts_per_unit: float = 100.0,
    steps_per_square: int = 500,
    max_units: int = 500,
    seed: int,
    compiled: bool,
    source: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> CorticalSheet:
    """A sheet on which units that respond alike lie closer; arguments and errors as :class:`PositionSearch`.

    The new sheet has the same places; which unit lies where has changed. Its ``log`` tells about the search.

    Args:
        source: what the responses came from, e.g. stimuli and model, as JSON values for the log.
        progress: called after each round with (attempts done, attempts in all).
    """
    search = PositionSearch(
        sheet,
        rates,
        attempts_per_unit=attempts_per_unit,
        steps_per_square=steps_per_square,
        max_units=max_units,
        seed=seed,
        compiled=compiled,
    )
    state = search.start()
    while not search.finished(state):
        state = search.advance(state)
        progress(min(state.attempts, search.budget), search.budget)
    return search.result(state, source)


def draw_squares(
    positions: Tensor, side_mm: float, *, max_units: int, generator: torch.Generator
) -> list[Tensor]:
    """Cut a sheet into squares at a random offset; no two of them share a unit.

    Squares with more than ``max_units`` are divided at random into equal parts; what holds fewer than 5 units
    is left out. The smallest come first, so that squares worked on together are of similar size.

    Args:
        positions: (U, 2), mm.

    Returns:
        Indices of the units of each square, int64.
    """
    offset = torch.rand(2, generator=generator, dtype=torch.float64) * side_mm
    cell = ((positions.double() - positions.amin(0) + offset) / side_mm).long()
    number = cell[:, 0] * (cell[:, 1].max() + 1) + cell[:, 1]
    # In random order, so that the parts of a divided square are random ones.
    units = torch.randperm(len(positions), generator=generator)
    units = units[number[units].argsort(stable=True)]
    cuts = number[units].diff().nonzero().flatten() + 1
    parts = [
        part
        for square in units.tensor_split(cuts)
        for part in square.tensor_split(-(-len(square) // max_units))
        if len(part) >= MIN_UNITS
    ]
    return sorted(parts, key=len)


def _draw_pairs(sizes_G: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Pairs (G, count, 2) of two different units, each pair as likely as the others."""
    draws = torch.rand(len(sizes_G), count, 2, generator=generator, dtype=torch.float64)
    first = (draws[..., 0] * sizes_G[:, None]).long()
    second = (draws[..., 1] * (sizes_G[:, None] - 1)).long()
    return torch.stack([first, second + (second >= first)], dim=2)


def _scores(sheet: CorticalSheet, rates: Tensor) -> Tensor:
    """(U + 1, S) whose rows' products are correlations; silent units and the last row are 0."""
    units = len(sheet.positions)
    if rates.ndim != 2 or rates.shape[1] != units or len(rates) < 2:
        raise UsageError(
            f"The sheet of {sheet.layer} needs responses (S, {units}) to two stimuli or more, "
            f"not {tuple(rates.shape)}."
        )
    bad = int((~rates.isfinite()).sum())
    if bad:
        raise GateError(
            f"{bad} of {rates.numel()} responses of '{sheet.layer}' are not finite, so no position is tried.",
            hint="Look for the layer of the auxiliary network that diverged, and train it anew.",
        )
    scores = torch.zeros(units + 1, len(rates), device=rates.device)
    scores[:units] = rates.T
    # Relative to its first response a constant unit is exactly zero; relative to its mean it need not be.
    scores -= scores[:, :1].clone()
    scores -= scores.mean(1, keepdim=True)
    norms = scores.norm(dim=1, keepdim=True)
    if not bool(norms.any()):
        raise GateError(
            f"Every unit of '{sheet.layer}' answers all stimuli alike, so there is nothing to sort by.",
            hint="Train the auxiliary network first, or take other stimuli.",
        )
    return scores.div_(norms.where(norms > 0, 1.0))
