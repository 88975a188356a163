"""Stopping when the answer is clear: time steps saved, and accuracy lost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray

from tdsnn.data._base import load_training
from tdsnn.errors import MissingError, UsageError
from tdsnn.inference import Exits, early_exit_curve, exits
from tdsnn.metrics._base import Curve, Figure
from tdsnn.models._adapted import Adapted
from tdsnn.models._base import Model
from tdsnn.temporal._base import Key, Measurement, Subject, TimeMetric
from tdsnn.temporal._figures import over_images, proportion
from tdsnn.temporal._steps import MOST_STEPS

__all__ = ["EarlyExit"]

_NUMBER = r"(\d{1,6}(\.\d{1,6})?)"
Margins = Annotated[
    str,
    Meta(
        pattern=rf"^{_NUMBER}(\+{_NUMBER})*\Z",
        description="margins above 0, in units of the logits, joined by '+'",
    ),
]
_CHOSEN = "at the chosen margin"


@dataclass(frozen=True, kw_only=True)
class EarlyExit(TimeMetric):
    """Mean number of time steps against accuracy, when an image stops as soon as its answer is clear.

    An image stops at the first step at which the largest of its logits, averaged over the steps so far, leads
    the second by the margin, else at T (:func:`tdsnn.inference.early_exit`).

    One margin is chosen, on images that were held out of training and never on test images: of ``margins``
    the one with the fewest steps that loses at most ``loss`` percentage points against never stopping early.

    Figures, at the chosen margin and at each other: ``steps``, their mean over images with Student's 95 %
    interval; ``accuracy``, percent, 95 % Wilson interval; ``accuracy lost``, the mean of 100 for an image
    that only the answer at T gets right and -100 for one that only the early answer does. The curve is
    accuracy against mean steps over the margins, never stopping early last. Samples: the same for each image.
    """

    needs_spikes: ClassVar[bool] = True

    margins: Margins = "0.125+0.25+0.5+1+2+4+8"
    """In units of the logits."""
    loss: Annotated[float, Meta(ge=0, le=100)] = 1.0
    """Percentage points of accuracy on held-out images that the chosen margin may lose."""
    held_out: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    """How many held-out images the choice is made on, from the first on."""
    steps: Annotated[int, Meta(ge=1, le=MOST_STEPS)] | None = None
    """T; by default the model's own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0.0 in self._margins():
            raise UsageError(
                "The margin of an early exit must be above 0, not 0.", hint="For example margins=0.5+1+2."
            )

    def _margins(self) -> tuple[float, ...]:
        """Ascending; the last, infinity, never stops early."""
        return (*sorted({float(word) for word in self.margins.split("+")}), math.inf)

    def objection(self, model: Model | Adapted) -> str | None:
        if isinstance(model, Adapted):
            return f"{model.name} cannot leave images out in the middle of a run: it is no model of this zoo."
        return super().objection(model)

    def compute(self, subject: Subject) -> Measurement:
        model = subject.model
        assert isinstance(model, Model)
        margins = self._margins()
        parts = [
            exits(model, x, y, margins, timesteps=self.steps, batch_size=len(x)) for x, y in subject.batches()
        ]
        found = Exits(
            steps=torch.cat([one.steps for one in parts], 1), right=torch.cat([one.right for one in parts], 1)
        )
        samples: dict[str, NDArray[np.float64]] = {}
        chosen, lacking = self._chosen(subject, model)
        if chosen is not None:
            samples |= _samples(found, margins.index(chosen), _CHOSEN)
        for place, margin in enumerate(margins[:-1]):
            samples |= _samples(found, place, f"at margin {margin:g}")
        return Measurement(
            figures={key: _figure(key, values) for key, values in samples.items()},
            samples=samples,
            curves={"accuracy": _curve(found)},
            missing={} if lacking is None else {_CHOSEN: lacking},
            conditions={} if chosen is None else {"chosen_margin": chosen},
        )

    def _chosen(self, subject: Subject, model: Model) -> tuple[float | None, str | None]:
        """The margin chosen on held-out images, or why there is none."""
        if not subject.dataset:
            return None, "These test images come without held-out images to choose a margin on."
        try:
            _, held_out = load_training(subject.dataset)
        except (MissingError, UsageError) as error:
            return None, f"No margin can be chosen: {error.message.partition(chr(10))[0]}"
        margins = self._margins()
        images, labels = held_out.take(slice(0, self.held_out))
        points = early_exit_curve(
            model, images, labels, margins, timesteps=self.steps, batch_size=subject.batch_size
        )
        least = points[-1].accuracy_percent - self.loss
        good = [point for point in points[:-1] if point.accuracy_percent >= least]
        if not good:
            return None, f"Each margin loses more than {self.loss:g} points on held-out images."
        return min(good, key=lambda point: point.mean_steps).margin, None


def _samples(found: Exits, place: int, where: str) -> dict[str, NDArray[np.float64]]:
    right, at_end = (found.right[one].double() for one in (place, -1))
    return {
        str(Key(f"steps {where}")): found.steps[place].double().cpu().numpy(),
        str(Key(f"accuracy {where}")): (100 * right).cpu().numpy(),
        str(Key(f"accuracy lost {where}")): (100 * (at_end - right)).cpu().numpy(),
    }


def _figure(key: str, values: NDArray[np.float64]) -> Figure:
    if key.startswith("steps"):
        return over_images(values, unit="steps")
    return over_images(values, unit="points") if key.startswith("accuracy lost") else proportion(values > 50)


def _curve(found: Exits) -> Curve:
    points = [proportion(right.cpu().numpy()) for right in found.right]
    return Curve(
        x=tuple(found.steps.double().mean(1).tolist()),
        y=tuple(point.value for point in points),
        low=tuple(point.low for point in points),
        high=tuple(point.high for point in points),
        x_label="mean time steps",
        y_label="accuracy (%)",
    )
