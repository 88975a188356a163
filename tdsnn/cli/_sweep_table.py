"""Table of a sweep's groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdsnn.cli import _output
from tdsnn.report._markdown import NOTHING, interval
from tdsnn.table import p_value, p_values

if TYPE_CHECKING:
    from tdsnn.report._sweep_groups import Group, Mean
    from tdsnn.report.sweep import SweepReport


def show(report: SweepReport) -> None:
    """Print one row for each group, and below the table what the numbers are and what was left out."""
    smooth = any(group.smoothness for group in report.groups)
    columns = [
        "group",
        "seeds",
        "held out %",
        "CPU min",
        "P(r, d)",
        *["smoothness"] * smooth,
        "difference",
        "p",
    ]
    rows = [
        [
            group.name,
            str(len(group.seeds)),
            _accuracy(group),
            f"{group.cpu_minutes.value:.1f}",
            _cell(group.alignment, "z.3f"),
            *[_cell(group.smoothness, "z.3f")] * smooth,
            *_difference(group, report),
        ]
        for group in report.groups
    ]
    title = f"{report.sweep}, n = {report.images} held-out images"
    _output.table(title, columns, rows, caption="\n".join([_caption(report), *report.notes]))


def _accuracy(group: Group) -> str:
    wilson = " Wilson" if len(group.seeds) == 1 else ""
    return _cell(group.accuracy, "z.2f") + wilson


def _cell(mean: Mean | None, form: str) -> str:
    if mean is None:
        return NOTHING
    return interval(mean.value, mean.interval, form) if mean.interval else f"{mean.value:{form}}"


def _difference(group: Group, report: SweepReport) -> list[str]:
    if group.name == report.baseline:
        return ["baseline", NOTHING]
    if group.difference is None:
        return [NOTHING, NOTHING]
    p, adjusted = group.difference.p_value, group.difference.p_holm
    shown = NOTHING if p is None or adjusted is None else p_value(p, adjusted)
    return [_cell(group.difference.mean, "+z.2f"), shown]


def _caption(report: SweepReport) -> str:
    means = "Means over seeds with 95 % Student t intervals over seeds."
    if any(len(group.seeds) == 1 for group in report.groups):
        means += " Wilson: one seed, 95 % interval over images."
    over = " ".join(
        f"{what}: mean over {len(layers)} layer{'s' * (len(layers) > 1)}."
        for what, layers in (("P(r, d)", report.alignment_layers), ("smoothness", report.smoothness_layers))
        if layers
    )
    difference = f"difference: accuracy minus that of {report.baseline} on the same seeds, in points."
    tested = sum(bool(group.difference and group.difference.p_holm is not None) for group in report.groups)
    if tested:
        difference += f" {p_values('paired t-test', tested)}."
    return "\n".join(filter(None, [means, over, difference]))
