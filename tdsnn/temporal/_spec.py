"""Which time metrics to measure, as people type them: ``anytime:steps=own+30``."""

from __future__ import annotations

from collections.abc import Sequence

from tdsnn.settings import once, stated_settings
from tdsnn.temporal._base import TIME_METRICS, TimeMetric

_EXAMPLE = "For example --metric entropy:steps=5+10."


def time_metrics(texts: Sequence[str]) -> tuple[TimeMetric, ...]:
    """Metrics in the given order, each ``NAME`` or ``NAME:KEY=VALUE,...``; equal ones once.

    Raises:
        UsageError: an unknown metric or setting, or a value that it may not have.
    """
    found: dict[TimeMetric, None] = {}
    for text in texts:
        name = text.partition(":")[0].strip()
        kind = TIME_METRICS.load(name)
        stated = once(
            stated_settings(text, example=_EXAMPLE), text, hint="Give --metric once for each value."
        )
        found[kind(name=name, **kind.read(name, stated, typed=True))] = None
    return tuple(found)
