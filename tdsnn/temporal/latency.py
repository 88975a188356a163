"""How long a time step takes, and how long one waits for the answer at t."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from tdsnn.inference import stream
from tdsnn.metrics._base import Curve, Figure
from tdsnn.models._adapted import Adapted
from tdsnn.models._base import Model
from tdsnn.runtime import machine
from tdsnn.temporal._base import Key, Measurement, Subject, TimeMetric, title_of
from tdsnn.temporal._figures import over_time
from tdsnn.temporal._spikes import check_steps
from tdsnn.temporal._steps import MOST_STEPS

__all__ = ["Latency"]

Floats = NDArray[np.float64]
Marks = list[Any]


@dataclass(frozen=True, kw_only=True)
class Latency(TimeMetric):
    """Wall time on the device, in two modes and for two batches, after some runs that do not count.

    Streaming: one step per call (:func:`tdsnn.inference.stream`); after each the device is waited for, so
    that its answer could be read. ``answer``: from the call to the answer at t, which includes what is done
    once for all steps. ``step``: from the answer at t - 1 to that at t; of the first, all up to its answer.
    Fused: one call for all T steps.

    Figures: the median over the repetitions in ms and, marked p95, their 95th percentile; intervals are the
    order statistics that hold the quantile with 95 % (distribution-free, for independent repetitions: other
    programs on the machine are no such noise). ``images per second``: of the throughput batch, from medians.
    Curves: the answer at t.

    Measured with a clock (``time.perf_counter_ns``; CUDA events on a GPU), so equal runs differ. Networks are
    measured one after the other: compare them on a calm machine only, whose ``load`` is given.
    """

    repeatable: ClassVar[bool] = False

    steps: Annotated[int, Meta(ge=1, le=MOST_STEPS)] | None = None
    """T; by default the model's own."""
    batch: Annotated[int, Meta(ge=2, le=65_536)] = 64
    """The throughput batch; at most as many images as there are."""
    warmup: Annotated[int, Meta(ge=1, le=10_000)] = 3
    """Runs before the first that counts, in each mode."""
    repeats: Annotated[int, Meta(ge=5, le=100_000)] = 30
    """Runs that count, in each mode."""

    def check(self, model: Model | Adapted) -> None:
        check_steps(model, self.steps or model.timesteps)

    def compute(self, subject: Subject) -> Measurement:
        model, steps = subject.model, self.steps or subject.model.timesteps
        images, _ = subject.split.take(slice(0, min(self.batch, subject.n)))
        images = images.to(subject.device)
        figures: dict[str, Figure] = {}
        curves: dict[str, Curve] = {}
        for x in (images[:1], images) if len(images) > 1 else (images,):
            where = f"batch {len(x)}"
            fused = self._timed(partial(_fused, model, x, steps), subject.device)
            figures |= _quantiles("fused", where, fused[:, 0], t=steps)
            if len(x) > 1:
                figures[str(Key("images per second fused", steps))] = _rate(len(x), fused[:, 0])
            if not isinstance(model, Model):
                continue
            ends = self._timed(partial(stream, model, x, steps), subject.device)
            figures |= _streaming(ends, where)
            if len(x) > 1:
                figures[str(Key("images per second streaming", steps))] = _rate(len(x), ends[:, -1])
            if steps > 1:
                curves[f"answer at {where}"] = _curve(ends)
        lacking = f"{title_of(model)} is run as a whole: it has no steps that one could wait for."
        return Measurement(
            figures=figures,
            curves=curves,
            missing={} if isinstance(model, Model) else {"streaming": lacking},
            conditions=self._conditions(subject, steps=steps, batch=len(images)),
        )

    def _timed(self, run: Callable[[], Iterator[Tensor]], device: torch.device) -> Floats:
        """(R, T) ms from the call to each answer that a run yields."""
        marks = [_marks(run, device) for _ in range(self.warmup + self.repeats)]
        return np.array([_elapsed(one) for one in marks[self.warmup :]])

    def _conditions(self, subject: Subject, *, steps: int, batch: int) -> dict[str, str | int]:
        found, layers = machine(subject.device), subject.model.neurons
        compiled = any(layer.compiled for layer in layers)
        return {
            "device": found["device_name"],
            "threads": found["threads"],
            "cores": os.cpu_count() or 1,
            "load": round(os.getloadavg()[0], 1),
            "path": "compiled operators" if compiled else "eager",
            "torch": found["packages"]["torch"],
            "timesteps": steps,
            "throughput_batch": batch,
            "warmup": self.warmup,
            "repeats": self.repeats,
        }


def _fused(model: Model | Adapted, x: Tensor, steps: int) -> Iterator[Tensor]:
    with torch.no_grad():
        if isinstance(model, Model):
            yield model(x, steps)
        elif steps == model.timesteps:
            yield model(x)
        else:
            yield model.outputs_of_frames(x.expand(steps, *x.shape)).mean(0)


def _marks(run: Callable[[], Iterator[Tensor]], device: torch.device) -> Marks:
    """Instants before a run and after each answer, in ns or as events of the device."""
    marks = [_now(device)]
    for _ in run():
        marks.append(_now(device))
    return marks


def _now(device: torch.device) -> Any:
    if device.type != "cuda":
        return time.perf_counter_ns()
    event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    event.synchronize()
    return event


def _elapsed(marks: Marks) -> list[float]:
    """ms from the first of the instants to each other one."""
    first, *others = marks
    if isinstance(first, int):
        return [(one - first) / 1e6 for one in others]
    return [first.elapsed_time(one) for one in others]


def _streaming(ends_RT: Floats, where: str) -> dict[str, Figure]:
    steps_RT = np.diff(ends_RT, axis=1, prepend=0.0)
    figures: dict[str, Figure] = {}
    for word, ms_RT in (("answer", ends_RT), ("step", steps_RT)):
        for t, ms_R in enumerate(ms_RT.T, start=1):
            figures |= _quantiles(word, where, ms_R, t=t)
    return figures


def _quantiles(word: str, where: str, ms_R: Floats, *, t: int) -> dict[str, Figure]:
    return {
        str(Key(f"{word} at {where}", t)): quantile(ms_R, 0.5),
        str(Key(f"{word} p95 at {where}", t)): quantile(ms_R, 0.95),
    }


def quantile(values_R: Floats, share: float, *, unit: str = "ms") -> Figure:
    """A quantile of independent values with the order statistics that hold it with at least 95 %, as far as
    there are enough of them (David and Nagaraja, 2003, Order Statistics, section 7.1)."""
    ordered, n = np.sort(values_R), len(values_R)
    chances = special.bdtr(np.arange(n), n, share)
    # chances[k]: that at most k values lie below the quantile, so that the (k + 1)-th lies above.
    low = max(0, int(np.searchsorted(chances, 0.025, side="right")) - 1)
    high = min(n - 1, int(np.searchsorted(chances, 0.975)))
    value = float(np.quantile(ordered, share))
    return Figure(
        value=value,
        low=min(value, float(ordered[low])),
        high=max(value, float(ordered[high])),
        unit=unit,
        n=n,
    )


def _rate(images: int, ms_R: Floats) -> Figure:
    ms = quantile(ms_R, 0.5)
    value, low, high = (1000 * images / one for one in (ms.value, ms.high, ms.low))
    return Figure(value=value, low=low, high=high, unit="images/s", n=ms.n)


def _curve(ends_RT: Floats) -> Curve:
    return over_time([quantile(ends_R, 0.5) for ends_R in ends_RT.T], y_label="answer after (ms)")
