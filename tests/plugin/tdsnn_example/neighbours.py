"""How alike nearest neighbours respond."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from tdsnn.errors import GateError
from tdsnn.metrics import CorticalSheet, Figure, Measurement, Metric, Responses

RESAMPLES = 200
FLAT = 0.9


class Neighbours(Metric):
    """Correlation over gratings between the responses of each unit and of the unit next to it on the sheet.

    Figures ``correlation`` and ``shuffled`` (the same units with their places exchanged), -1 to 1: the mean
    over the n units whose response varies, with 1.96 standard deviations of the means of 200 resamples of
    these units. Layers whose shuffled correlation is above 0.9 respond as one unit and are refused.
    """

    stimuli: ClassVar[str] = "gratings"
    direction: ClassVar[Literal["higher", "lower", "none"]] = "higher"

    def compute(self, responses: Responses, sheet: CorticalSheet, *, seed: int) -> Measurement:
        varying = responses.rates.amax(0) > responses.rates.amin(0)
        rates = responses.rates[:, varying].double()
        places = sheet.positions[varying].double()
        draws = torch.Generator().manual_seed(seed)
        unit_SU = torch.nn.functional.normalize(rates - rates.mean(0), dim=0)
        shuffled = _figure(unit_SU, places[torch.randperm(len(places), generator=draws)], draws)
        if shuffled.value > FLAT:
            raise GateError(
                f"All units of '{responses.layer}' respond as one: no neighbour can be told apart."
            )
        return Measurement(figures={"correlation": _figure(unit_SU, places, draws), "shuffled": shuffled})


def _figure(unit_SU: Tensor, places: Tensor, draws: torch.Generator) -> Figure:
    nearest = torch.cdist(places, places).fill_diagonal_(torch.inf).argmin(1)
    found = (unit_SU * unit_SU[:, nearest]).sum(0)
    chosen = torch.randint(len(found), (RESAMPLES, len(found)), generator=draws)
    value, spread = float(found.mean()), 1.96 * float(found[chosen].mean(1).std())
    return Figure(value=value, low=value - spread, high=value + spread, unit="", n=len(found))
