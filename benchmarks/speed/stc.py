"""What the spatial loss adds to a training step."""

from __future__ import annotations

from functools import partial

from benchmarks.speed._measure import Row, Settings, Target, interleave
from benchmarks.speed._steps import BATCH, SIZE, TrainingStep, make_batch, make_ours
from tdsnn.schema import Topography
from tdsnn.topography.losses.stc import STC
from tdsnn.topography.preparation import fresh_sheets

_WIDTH = 32
_TOPOGRAPHY = Topography(alpha=0.1, beta=0.1, clusters=10, cluster_units=64)


def run(settings: Settings) -> list[Row]:
    """A step at width 32 with the STC loss on all eight sheets, beside the same step without."""
    batch = make_batch()
    model = make_ours(width=_WIDTH)
    model.sheets = fresh_sheets(model, model.sheet_specs.values(), _TOPOGRAPHY, image_shape=(3, SIZE, SIZE))
    spatial = STC(model, _TOPOGRAPHY)
    spatial.compiled = True
    timings = interleave(
        {
            "without": partial(TrainingStep(make_ours(width=_WIDTH), bf16=True), batch),
            "with": partial(TrainingStep(model, bf16=True, spatial=spatial), batch),
        },
        rounds=settings.rounds,
        calls=4,
    )
    return [
        Row(
            name=f"training step, width {_WIDTH}, batch {BATCH}, STC loss ({len(model.sheets)} layers, "
            f"M = {_TOPOGRAPHY.clusters}) against none",
            unit="ms",
            stock=1e3 * timings.median("without"),
            ours=1e3 * timings.median("with"),
            ratio=timings.ratio("with", "without"),
            meaning="with / without",
            target=Target(bound="at most", value=1.10),
        )
    ]
