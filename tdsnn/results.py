"""Benchmark results: the schema.

Schema 1 of ``result.json``::

    schema       1
    settings     what was asked for: dataset and its digest, n, seed, dtype, attacks and their settings
    settings_digest
    models       one record for each model: checkpoint sha256, T, surrogate, twin, gates, signs of masking
    cells        one record for each (model, attack, variant, eps), in table order
    radii        for each model and norm what is left of each class at each radius; absent in older documents
    comparisons  paired differences, topographic minus twin
    measurements for each model and time metric its figures and curves; absent in older documents
    shifts       paired differences of what those metrics found for each image; absent in older documents
    provenance   everything that may differ between two runs with equal numbers: dates, wall time,
                 versions, device, code state, and ``timings``, the measurements that a clock made

Everything outside ``provenance`` is equal for equal settings on one machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from msgspec import Meta, structs

from tdsnn.files import digest_of
from tdsnn.result_tables import tables
from tdsnn.schema import Count, Finite, Share, Table, plain
from tdsnn.stats import PairedDifference, wilson
from tdsnn.table import titled

SCHEMA = 1
Strength = Annotated[float, Meta(ge=0, le=1e9)]


class Figure(Table, frozen=True, kw_only=True):
    """A number that may be published: never without unit, n and 95 % interval."""

    value: Finite
    low: Finite
    high: Finite
    unit: str
    n: Count
    method: str
    """How the interval was computed."""


class Place(NamedTuple):
    """Which row of a table a cell is in."""

    attack: str
    variant: str
    eps_255: float


class Cell(Table, frozen=True, kw_only=True):
    """One figure of one model: its accuracy without attack, or under one attack of one strength."""

    key: str
    """Digest of everything that affects the numbers."""
    model: str
    attack: str
    """Registered name; ``clean`` without attack; ``worst case`` for the union of attacks."""
    variant: str = ""
    """Settings and norm that differ from the attack's defaults, as they are typed."""
    eps_255: Strength
    """Strength in units of 1/255, in L0 of values."""
    norm: str | None
    settings: Mapping[str, Any]
    accuracy: Figure | None
    """Percent of all n images; None in an error cell."""
    clean_correct: Count | None
    survivors: Count | None
    entered: Count | None = None
    """How many images were attacked, if those that attacks before had fooled were left out: the accuracy is
    then that of all of them together. 0: the attack has no meaning for the model. None: all that are right
    without attack were."""
    error: str | None = None
    """Why there is no number."""
    unit: str = "sigma"
    """Of noise, what its strength is: ``sigma`` (in units of 1/255), ``percent`` or ``severity``."""

    @property
    def place(self) -> Place:
        """Row of the cell, the same for all models."""
        return Place(self.attack, self.variant, self.eps_255)

    @property
    def title(self) -> str:
        """Attack and variant as they are typed."""
        return titled(self.attack, self.variant)


class Comparison(Table, frozen=True, kw_only=True):
    """Accuracy of ``model`` minus accuracy of ``twin`` on the same images."""

    model: str
    twin: str
    attack: str
    variant: str = ""
    eps_255: Strength
    difference: Figure
    """Percentage points."""
    only_model: Count
    only_twin: Count
    p_mcnemar: Share
    p_holm: Share
    """Adjusted over all comparisons of the result."""

    @property
    def place(self) -> Place:
        """Row of the cells that are compared."""
        return Place(self.attack, self.variant, self.eps_255)

    @property
    def turned(self) -> Comparison:
        """The same as ``twin`` minus ``model``."""
        found = self.difference
        return structs.replace(
            self,
            model=self.twin,
            twin=self.model,
            difference=structs.replace(found, value=-found.value, low=-found.high, high=-found.low),
            only_model=self.only_twin,
            only_twin=self.only_model,
        )


class Key(NamedTuple):
    """Name of what a time metric found: what, for how many steps, and where; ``str`` gives
    ``entropy,T=5@layer1.0``."""

    quantity: str
    """In the words of a table, without ``,`` and ``@``."""
    steps: int | None = None
    """Time steps that the network ran, or the step that the figure is of; None where it is of all."""
    place: str | None = None
    """A layer, or a connection between two."""

    def __str__(self) -> str:
        steps = "" if self.steps is None else f",T={self.steps}"
        return f"{self.quantity}{steps}" + ("" if self.place is None else f"@{self.place}")

    @classmethod
    def parse(cls, text: str) -> Key:
        """The key that ``str`` gave."""
        name, _, place = text.partition("@")
        quantity, _, steps = name.partition(",T=")
        return cls(quantity, int(steps) if steps else None, place or None)


class Shift(Table, frozen=True, kw_only=True):
    """What a time metric found in ``model`` minus what it found in ``twin``, over the same images."""

    model: str
    twin: str
    metric: str
    variant: str
    key: str
    """Of the figure, ``QUANTITY[,T=t][@PLACE]``."""
    difference: Figure
    p: Share
    """Paired t-test over images, two-sided."""
    p_holm: Share
    """Adjusted over all shifts of the metric for this pair."""


class Result(Table, frozen=True, kw_only=True):
    """One benchmark run, whose text is its tables; see the module's docstring for the JSON."""

    settings: Mapping[str, Any]
    models: tuple[Mapping[str, Any], ...]
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    provenance: Mapping[str, Any]
    radii: tuple[Mapping[str, Any], ...] = ()
    measurements: tuple[Mapping[str, Any], ...] = ()
    shifts: tuple[Shift, ...] = ()

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Names of models that are shown together: each pair, then those without a partner."""
        pairs = dict.fromkeys((row.model, row.twin) for row in self.comparisons)
        paired = {name for pair in pairs for name in pair}
        names = [str(model["name"]) for model in self.models]
        return (*pairs, *((name,) for name in names if name not in paired))

    @property
    def measured(self) -> tuple[Mapping[str, Any], ...]:
        """The measurements, and after them the timings, which are not the same in equal runs."""
        return (*self.measurements, *self.provenance.get("timings", ()))

    def document(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        parts = {key: [*part] if isinstance(part, tuple) else part for key, part in plain(self).items()}
        return {"schema": SCHEMA, "settings_digest": digest_of(self.settings), **parts}

    def __repr__(self) -> str:
        return "\n\n".join(map(str, tables(self)))


def accuracy_figure(right: int, n: int) -> Figure:
    """Accuracy in percent with its Wilson interval."""
    interval = wilson(right, n)
    return Figure(
        value=100 * right / n,
        low=100 * interval.low,
        high=100 * interval.high,
        unit="%",
        n=n,
        method="Wilson score, 95 %",
    )


def difference_figure(found: PairedDifference) -> Figure:
    """A paired difference of accuracies in percentage points with its Tango interval."""
    return Figure(
        value=100 * found.difference,
        low=100 * found.interval.low,
        high=100 * found.interval.high,
        unit="percentage points",
        n=found.n,
        method="Tango score for paired proportions, 95 %",
    )
