"""Synthetic sheets whose maps are known, for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from tdsnn.metrics._base import Measurement, Metric
from tdsnn.topography.responses import Responses, StimulusSet
from tdsnn.topography.sheets import CorticalSheet

Floats = NDArray[np.float64]

SIZE_MM, WIDTH_MM = 24.0, 2.0
"""Twelve neighbourhood widths, 5.6 hypercolumns."""
ORIENTATIONS = tuple(22.5 * k for k in range(8))
FREQUENCIES = (0.79, 2.65, 4.52, 6.38)
COLOURS = ("black and white", "red and cyan")
CATEGORIES = ("faces", "bodies", "characters", "places", "objects")
SUBCATEGORIES = tuple(f"{category} {kind}" for category in CATEGORIES for kind in "ab")
CENTRES = np.array([(0.22, 0.22), (0.30, 0.22), (0.78, 0.22), (0.22, 0.78), (0.78, 0.78)])
"""Of one region for each category, in sides of the sheet; those of faces and bodies overlap."""
RADIUS = 0.13


def sheet(*, shape: tuple[int, int, int] = (28, 12, 12), seed: int = 0) -> CorticalSheet:
    """Units anywhere on the sheet, evenly at random; 4,032 of them by default."""
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(shape[0] * shape[1] * shape[2], 2, generator=generator) * SIZE_MM
    return CorticalSheet(
        layer="layer",
        shape=shape,
        size_mm=SIZE_MM,
        neighbourhood_mm=WIDTH_MM,
        seed=seed,
        preparation="random",
        positions=positions,
    )


def places(on: CorticalSheet) -> tuple[Floats, Floats]:
    """x and y of each unit, mm."""
    x, y = on.positions.double().numpy().T
    return x, y


def shuffled(on: CorticalSheet, *, seed: int = 1) -> CorticalSheet:
    """The same places, given to other units."""
    order = torch.randperm(len(on.positions), generator=torch.Generator().manual_seed(seed))
    return dataclasses.replace(on, positions=on.positions[order])


def gratings(colours: int = 2) -> StimulusSet:
    """Every combination of 8 orientations, 4 frequencies, 2 phases and the colours, without pixels."""
    levels = {
        "orientation_deg": ORIENTATIONS,
        "cycles_per_image": FREQUENCIES,
        "phase_deg": (0.0, 90.0),
        "colour": COLOURS[:colours],
    }
    grid = torch.cartesian_prod(*(torch.arange(len(part)) for part in levels.values()))
    return StimulusSet(
        name="gratings",
        images=torch.zeros(len(grid), 1, 1, 1),
        factors=dict(zip(levels, grid.unbind(1), strict=True)),
        levels=levels,
    )


def floc(repeats: int = 20) -> StimulusSet:
    """Five categories of two subcategories each, without pixels."""
    subcategory = torch.arange(len(SUBCATEGORIES)).repeat_interleave(repeats)
    return StimulusSet(
        name="floc",
        images=torch.zeros(len(subcategory), 1, 1, 1),
        factors={"category": subcategory // 2, "subcategory": subcategory},
        levels={"category": CATEGORIES, "subcategory": SUBCATEGORIES},
    )


def responses(rates: Floats, stimuli: StimulusSet, on: CorticalSheet) -> Responses:
    """Responses (S, U) of the layer on the sheet."""
    return Responses(layer=on.layer, rates=torch.from_numpy(rates).float(), shape=on.shape, stimuli=stimuli)


def to_gratings(
    on: CorticalSheet,
    orientation_deg: Floats,
    *,
    frequency: Floats | None = None,
    colour: Floats | None = None,
    noise: float = 0.02,
    stimuli: StimulusSet | None = None,
) -> Responses:
    """Rates of units that prefer the given orientation, frequency (index) and colour (index)."""
    stimuli = stimuli or gratings()
    shown = np.array(ORIENTATIONS)[stimuli.factors["orientation_deg"].numpy()][:, None]
    rates = 0.5 + 0.4 * np.cos(2 * np.deg2rad(shown - orientation_deg))
    if frequency is not None:
        rates = rates * np.exp(-((stimuli.factors["cycles_per_image"].numpy()[:, None] - frequency) ** 2))
    if colour is not None:
        rates = rates * np.where(stimuli.factors["colour"].numpy()[:, None] == colour, 1.0, 0.5)
    generator = np.random.default_rng(0)
    rates *= generator.uniform(0.4, 1.0, rates.shape[1])
    return responses(rates + noise * generator.random(rates.shape), stimuli, on)


def ordered_gratings(on: CorticalSheet) -> Responses:
    """All three preferences change slowly from place to place."""
    x, y = places(on)
    return to_gratings(
        on,
        lattice_deg(x, y, spacing_mm=3.0, offset_mm=0.0),
        frequency=np.round(1.5 + 1.5 * np.sin(2 * np.pi * x / 6)),
        colour=(np.sin(2 * np.pi * y / 6) > 0).astype(np.float64),
    )


def lattice_deg(x: Floats, y: Floats, *, spacing_mm: float, offset_mm: float) -> Floats:
    """Orientations with one singularity, of alternating sign, at every corner of a square lattice."""
    field = np.sin(np.pi * (x - offset_mm) / spacing_mm) + 1j * np.sin(np.pi * (y - offset_mm) / spacing_mm)
    return np.asarray(np.rad2deg(np.angle(field)) / 2 % 180)


def to_categories(on: CorticalSheet, preferred_CU: Floats, *, repeats: int = 20) -> Responses:
    """Noisy rates, higher by 0.2 for the images of the categories that a unit prefers."""
    stimuli = floc(repeats)
    generator = np.random.default_rng(0)
    shown = preferred_CU[stimuli.factors["category"].numpy()]
    return responses(0.2 + 0.2 * shown + 0.2 * generator.random(shown.shape), stimuli, on)


def regions(on: CorticalSheet) -> Floats:
    """(C, U), 1 within the region of each category."""
    x, y = places(on)
    return np.array(
        [np.hypot(x / SIZE_MM - cx, y / SIZE_MM - cy) < RADIUS for cx, cy in CENTRES], dtype=np.float64
    )


def ordered_categories(on: CorticalSheet) -> Responses:
    """One round region for each category."""
    return to_categories(on, regions(on))


ORDERED: dict[str, Callable[[CorticalSheet], Responses]] = {
    "gratings": ordered_gratings,
    "floc": ordered_categories,
}


def values(metric: Metric, given: Responses, on: CorticalSheet, *, seed: int = 0) -> dict[str, float]:
    """Values of all figures."""
    found: Measurement = metric.measure(given, on, seed=seed)
    return {name: figure.value for name, figure in found.figures.items()}
