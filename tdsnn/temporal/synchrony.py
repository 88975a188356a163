"""Coincident spikes of pairs of units against their distance on the sheet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from msgspec import Meta
from torch import Tensor

from tdsnn.errors import GateError, UsageError
from tdsnn.metrics._base import Curve, Figure
from tdsnn.metrics._windows import members, tiles
from tdsnn.models._adapted import Adapted
from tdsnn.models._base import Model
from tdsnn.registry import suggest
from tdsnn.temporal._base import Key, Measurement, Subject, TimeMetric
from tdsnn.temporal._coincidences import Pairs, draw_pairs, synchrony
from tdsnn.temporal._figures import over_images
from tdsnn.temporal._resamples import Floats, mean_curve
from tdsnn.temporal._spikes import record_spikes
from tdsnn.temporal._steps import Layers, layer_names
from tdsnn.topography.losses.stc import lag_kernel
from tdsnn.topography.sheets import CorticalSheet

__all__ = ["Synchrony"]

BINS = 15
WINDOW = 1.5 / 1.626
"""Side of a window in neighbourhood widths, as for the correlation of responses against distance."""
LEAST_ACROSS = 3
MOST_UNITS = 200
"""Units drawn from a window that holds more."""
PER_BIN = 2000
"""Pairs drawn for each bin of distance, if there are so many."""
LEAST_PAIRS = 20
"""Fewest pairs of units that fire, in the nearest and in the farthest bin."""


@dataclass(frozen=True, kw_only=True)
class Synchrony(TimeMetric):
    """How much more near units fire together than units one window apart, and how much of that is timing.

    Synchrony of a pair is the cross-correlogram of STC's temporal term, normalised: r = CCG_ij /
    sqrt(ACG_i ACG_j), with CCG_ij the mean over images of the sum over lags -W..W of coincidences, each lag
    weighed by 1 / (T - lag) (TDSNN, arXiv 2508.04270, eqs. 5 and 6; above 1 for some pairs that rarely fire).
    No mean is subtracted, so rates alone make synchrony. The control says how much: the steps of each unit
    shuffled within each image, which keeps all counts; it is the mean over all such shuffles in closed form,
    not a draw. What is above it is timing, be it of pairs or of all units (e.g. a first step without spikes).

    The sheet is cut into windows of 0.92 neighbourhood widths (fewer than 3 x 3 never). Pairs within a window
    are drawn from the sheet alone, up to 2,000 in each of 15 equal bins of distance up to the side of a
    window: a network and its twin, which lies on the same sheets, are asked about the same pairs. Pairs with
    a unit that never fires are left out.

    Figures of each layer: ``excess``, what nearest minus farthest bin are above the same of the control;
    ``near - far`` and ``near - far shuffled``, those two; ``near`` and ``near shuffled``. They are means of
    one value for each image, with the ACGs of all images, and have Student's interval; the curves against
    distance have 95 % percentile bootstraps over images (1,000).
    """

    needs_spikes = True

    lag: Annotated[int, Meta(ge=0, le=998)] = 1
    """Largest lag W in steps, below T."""
    layers: Layers = ""

    def objection(self, model: Model | Adapted) -> str | None:
        """See :meth:`TimeMetric.objection`."""
        if refused := super().objection(model):
            return refused
        if isinstance(model, Adapted) or not model.sheets:
            return "The units of this network lie on no sheets, so they have no distance."
        if model.timesteps == 1:
            return "A network of one time step has no timing."
        return None

    def check(self, model: Model | Adapted) -> None:
        """See :meth:`TimeMetric.check`."""
        assert isinstance(model, Model)
        if self.lag >= model.timesteps:
            raise UsageError(
                f"A lag of {self.lag} needs more than {self.lag} time steps, and the network has "
                f"{model.timesteps}.",
                hint=f"For example synchrony:lag={model.timesteps - 1}",
            )
        for layer in layer_names(self.layers):
            if layer not in model.sheets:
                raise suggest(layer, model.sheets, kind="layer with a sheet")

    def compute(self, subject: Subject) -> Measurement:
        """See :meth:`TimeMetric.compute`."""
        model = subject.model
        assert isinstance(model, Model)
        kernel = lag_kernel(model.timesteps, window=self.lag, shape="flat")
        figures: dict[str, Figure] = {}
        curves: dict[str, Curve] = {}
        samples: dict[str, Floats] = {}
        missing: dict[str, str] = {}
        for layer, spikes in _recorded(subject, layer_names(self.layers) or tuple(model.sheets)).items():
            pairs, side = pairs_on(model.sheets[layer], seed=subject.seed)
            pairs = of_firing_units(pairs, spikes)
            counts = np.bincount(pairs.bins, minlength=BINS)[[0, -1]]
            if counts.min() < LEAST_PAIRS:
                missing[layer] = (
                    f"{counts[0]} near and {counts[1]} far pairs of units fire; {LEAST_PAIRS} are needed."
                )
                continue
            observed, shuffled = synchrony(spikes, pairs, kernel, bins=BINS)
            own = _values(observed, shuffled, layer)
            samples |= {key: one for key, one in own.items() if Key.parse(key).quantity in _SHIFTED}
            figures |= {key: over_images(values, unit="") for key, values in own.items()}
            for name, values in (("synchrony", observed), ("synchrony shuffled", shuffled)):
                curves[str(Key(name, None, layer))] = mean_curve(
                    (np.arange(BINS) + 0.5) * side / BINS,
                    values,
                    x_label="distance (mm)",
                    y_label="synchrony",
                    seed=subject.seed,
                )
        if not figures:
            raise GateError(f"Too few units fire in every layer: {'; '.join(missing.values())}")
        ordered = sorted(figures, key=lambda key: _ORDER.index(Key.parse(key).quantity))
        return Measurement(
            figures={key: figures[key] for key in ordered}, curves=curves, samples=samples, missing=missing
        )


_SHIFTED = ("excess", "near - far")
"""What a network is set beside its twin in."""
_ORDER = ("excess", "near - far", "near - far shuffled", "near", "near shuffled")


def _recorded(subject: Subject, layers: tuple[str, ...]) -> dict[str, Tensor]:
    """Layer to the spikes (N, T, U) of all images, bool, on the CPU."""
    parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for x, _ in subject.batches():
        for layer, spikes_TNU in record_spikes(subject.model, x, layers).items():
            parts[layer].append(spikes_TNU.transpose(0, 1).cpu())
    return {layer: torch.cat(found) for layer, found in parts.items()}


def pairs_on(sheet: CorticalSheet, *, seed: int) -> tuple[Pairs, float]:
    """Pairs by distance, and the side of a window in mm; the same for all networks on this sheet."""
    positions = sheet.positions.numpy().astype(np.float64)
    tile, _, side = tiles(positions, WINDOW * sheet.neighbourhood_mm, least=LEAST_ACROSS)
    pairs = draw_pairs(
        positions,
        members(tile, least=2),
        side_mm=side,
        bins=BINS,
        per_bin=PER_BIN,
        most_units=MOST_UNITS,
        generator=np.random.default_rng(seed),
    )
    return pairs, side


def of_firing_units(pairs: Pairs, spikes_NTU: Tensor) -> Pairs:
    """The pairs of which both units fire at least once."""
    fires = spikes_NTU.any(0).any(0).numpy()
    return pairs.select(fires[pairs.first] & fires[pairs.second])


def _values(observed: Floats, shuffled: Floats, layer: str) -> dict[str, Floats]:
    """Key to one value for each image."""
    decay, by_chance = (one[:, 0] - one[:, -1] for one in (observed, shuffled))
    found = dict(
        zip(_ORDER, (decay - by_chance, decay, by_chance, observed[:, 0], shuffled[:, 0]), strict=True)
    )
    return {str(Key(quantity, None, layer)): values for quantity, values in found.items()}
