"""Answers while time passes: logits step by step, and leaving early when a sample is clear enough.

The state of the neurons belongs to the run, not to the model. So runs on one model do not mix, also in
threads, and whatever ends a run ends its state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tdsnn.errors import UsageError
from tdsnn.models._base import Model
from tdsnn.stats import Interval, wilson


@dataclass(frozen=True)
class EarlyExit:
    """Answers of a batch whose samples stopped at different steps."""

    logits: Tensor
    """(N, K) in fp32, the mean over the steps that the sample took."""
    steps: Tensor
    """(N,) int64, the number of these steps, 1 to T."""


@dataclass(frozen=True, kw_only=True)
class Exits:
    """Where N labelled samples stop for each of M margins, and what they answer there."""

    steps: Tensor
    """(M, N) int64, 1 to T."""
    right: Tensor
    """(M, N) bool."""


@dataclass(frozen=True, kw_only=True)
class ExitPoint:
    """What one margin gives, and costs, on labelled images."""

    margin: float
    """In units of the logits."""
    accuracy_percent: float
    interval_percent: Interval
    """95 % Wilson interval."""
    mean_steps: float
    n: int


def stream(model: Model, x: Tensor, timesteps: int | None = None) -> Iterator[Tensor]:
    """Logits (N, K) of one time step after the other, each as soon as it is computed.

    They are the rows of ``model.logits_over_time(x, timesteps)`` up to floating-point summation order (other
    batch sizes of a convolution), without gradients. What does not change over time is computed once, in the
    call itself. The iteration may be left at any step.

    Args:
        model: in eval mode.
        x: images (N, C, H, W), float in [0, 1]; may be changed after the call.
        timesteps: T; None is the model's own.

    Raises:
        UsageError: a model in training mode, images that it does not take or with pixels outside [0, 1], or
            ``timesteps`` below 1; in the call, not at the first step.
    """
    steps, run = model.count_steps(timesteps), _Run(model, x)
    return (run.step() for _ in range(steps))


def early_exit(model: Model, x: Tensor, *, margin: float, timesteps: int | None = None) -> EarlyExit:
    """Run until the answer is clear: fewer time steps, at a cost in accuracy.

    A sample stops at the first step at which the largest of its logits, averaged over the steps so far, is at
    least ``margin`` above the second, else at T. It then leaves the batch, so that its time is really saved.
    At the first step few spikes have come through: logits may be nearly the same for every image, and a
    margin below their lead stops there. So choose it with :func:`early_exit_curve`, not on the test set.

    Args:
        model: in eval mode, with at least two classes.
        x: images (N, C, H, W), float in [0, 1].
        margin: above 0, in units of the logits; infinity never stops early.
        timesteps: T; None is the model's own.

    Raises:
        UsageError: as :func:`stream`, a margin that is not above 0, or a single class.
    """
    _check_margins(model, [margin])
    steps, run = model.count_steps(timesteps), _Run(model, x)
    taken = torch.full((len(x),), steps, device=x.device)
    answers = torch.empty(len(x), model.num_classes, dtype=torch.float32, device=x.device)
    active = torch.arange(len(x), device=x.device)
    total = torch.zeros_like(answers)
    for step in range(1, steps + 1):
        total = total + run.step().float()
        mean = total / step
        clear = _lead(mean) >= margin
        answers[active], taken[active[clear]] = mean, step
        if clear.all():
            break
        if clear.any():
            going_on = (~clear).nonzero().squeeze(1)
            active, total = active[going_on], total[going_on]
            run.select(going_on)
    return EarlyExit(answers, taken)


def early_exit_curve(
    model: Model,
    images: Tensor,
    labels: Tensor,
    margins: Sequence[float],
    *,
    timesteps: int | None = None,
    batch_size: int = 256,
) -> list[ExitPoint]:
    """Accuracy and mean number of steps of :func:`early_exit` for each margin, from one full run.

    Args:
        model: in eval mode, with at least two classes.
        images: (N, C, H, W), float in [0, 1], N at least 1; moved to the model's device batch by batch.
        labels: true classes (N,), integers.
        margins: each above 0, in units of the logits.
        timesteps: T; None is the model's own.
        batch_size: images at a time, at least 1.

    Raises:
        UsageError: as :func:`early_exit`, or images and labels that do not belong together.
    """
    found = exits(model, images, labels, margins, timesteps=timesteps, batch_size=batch_size)
    return [_point(*one) for one in zip(margins, found.steps, found.right, strict=True)]


def exits(
    model: Model,
    images: Tensor,
    labels: Tensor,
    margins: Sequence[float],
    *,
    timesteps: int | None = None,
    batch_size: int = 256,
) -> Exits:
    """What :func:`early_exit_curve` sums up, for each image; arguments and errors are its own."""
    _check_margins(model, margins)
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}.")
    if not len(images) or labels.shape != images.shape[:1]:
        raise UsageError(
            f"{len(images)} images and labels of shape {tuple(labels.shape)} do not belong together.",
            hint="Give at least one image, and one label for each.",
        )
    parts = []
    for x, y in zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True):
        judged = _judged(model, x.to(model.mean.device), y.to(model.mean.device), timesteps)
        stopped = [_stopped(margin, *judged) for margin in margins]
        parts.append([torch.stack(one) for one in zip(*stopped, strict=True)])
    steps, right = (torch.cat([part[place] for part in parts], 1) for place in (0, 1))
    return Exits(steps=steps, right=right)


class _Run:
    """One forward pass that goes on step by step, and all that it remembers."""

    def __init__(self, model: Model, x: Tensor) -> None:
        if model.training:
            raise UsageError(
                "A model in training mode normalises over all time steps, so it cannot run step by step.",
                hint="Call model.eval() first.",
            )
        self._model = model
        # Asked this way, NaN is outside too.
        if isinstance(x, Tensor) and not bool(((x >= 0) & (x <= 1)).all()):
            raise UsageError(
                "The images have pixels outside [0, 1], or that are no number.",
                hint="Normalisation is inside the model; of bytes: images.float() / 255",
            )
        with torch.no_grad():
            self._encoded = model.encode(x)
            self._state = model.init_state(self._encoded)

    def step(self) -> Tensor:
        """Logits (N, K) of the next time step."""
        with torch.no_grad():
            logits, self._state = self._model.step(self._encoded, self._state)
        return logits

    def select(self, indices: Tensor) -> None:
        """Go on with these samples only."""
        self._encoded = self._encoded[indices]
        self._state = {name: tensor[indices] for name, tensor in self._state.items()}


def _lead(logits: Tensor) -> Tensor:
    """Distance (...) of the largest of the logits (..., K) from the second."""
    top = logits.topk(2, dim=-1).values
    return top[..., 0] - top[..., 1]


def _judged(model: Model, x: Tensor, y: Tensor, timesteps: int | None) -> tuple[Tensor, Tensor]:
    """Lead (T, N) of the mean over the first steps, and whether its answer is right (T, N)."""
    total = torch.zeros(len(x), model.num_classes, device=x.device)
    leads, verdicts = [], []
    for step, logits in enumerate(stream(model, x, timesteps), start=1):
        total = total + logits
        mean = total / step
        leads.append(_lead(mean))
        verdicts.append(mean.argmax(1) == y)
    return torch.stack(leads), torch.stack(verdicts)


def _stopped(margin: float, lead_TN: Tensor, right_TN: Tensor) -> tuple[Tensor, Tensor]:
    """Steps (N,) that samples take, and whether the answers (N,) are right."""
    stops = lead_TN >= margin
    stops[-1] = True
    last = stops.int().argmax(0)  # the first of equal maxima
    return last + 1, right_TN.gather(0, last[None])[0]


def _point(margin: float, steps_N: Tensor, right_N: Tensor) -> ExitPoint:
    right, n = int(right_N.sum()), len(right_N)
    interval = wilson(right, n)
    return ExitPoint(
        margin=margin,
        accuracy_percent=100 * right / n,
        interval_percent=Interval(100 * interval.low, 100 * interval.high),
        mean_steps=float(steps_N.double().mean()),
        n=n,
    )


def _check_margins(model: Model, margins: Sequence[float]) -> None:
    for margin in margins:
        if not margin > 0:
            raise UsageError(
                f"The margin of an early exit must be above 0, not {margin}.",
                hint="Measure what margins cost: early_exit_curve(model, images, labels, [0.5, 1, 2])",
            )
    if model.num_classes < 2:
        raise UsageError("An early exit compares two classes, and this model has one.")
