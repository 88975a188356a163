"""Surrogates as people type them: ``atan-4``, ``assg-0.425``, ``straight-through``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tdsnn.errors import UsageError
from tdsnn.kernels.surrogates._base import Surrogate
from tdsnn.kernels.surrogates._rates import ClippedReLU, Hart, Rate, RateGradient
from tdsnn.kernels.surrogates._shapes import Shape
from tdsnn.kernels.surrogates._statistics import Adaptive, PotentialDependent
from tdsnn.registry import suggest

AS_TRAINED = "as-trained"
_SWEEP = "sweep"
_SWEPT = (1, 2, 4, 8, 16)
"""Sharpnesses of the arctangent that ``sweep`` means."""


class _Kind(NamedTuple):
    made: type[Surrogate]
    default: float | None = None
    """None: it takes no number."""
    below: float = math.inf


_KINDS: Mapping[str, _Kind] = {
    "atan": _Kind(Shape, 2.0),
    "sigmoid": _Kind(Shape, 4.0),
    "triangle": _Kind(Shape, 1.0),
    "rectangle": _Kind(Shape, 1.0),
    "gaussian": _Kind(Shape, 1.0),
    "straight-through": _Kind(Shape),
    "assg": _Kind(Adaptive, 0.425, below=0.5),
    "pdsg": _Kind(PotentialDependent),
    "hart": _Kind(Hart, 0.5),
    "bptr": _Kind(Rate),
    "rga": _Kind(RateGradient),
    "relu": _Kind(ClippedReLU),
}
_HELP = f"One of {AS_TRAINED}, {_SWEEP}, {', '.join(map(str, _KINDS))}, with a number as in atan-4."


def read_surrogates(text: str) -> tuple[Surrogate | None, ...]:
    """One or several surrogates, joined by ``+``; ``sweep`` is five arctangents, and None ``as-trained``.

    Raises:
        UsageError: an unknown name, or a number that it does not take.
    """
    words = text.replace(_SWEEP, "+".join(f"atan-{sharpness}" for sharpness in _SWEPT)).split("+")
    return tuple(dict.fromkeys(None if word == AS_TRAINED else read_surrogate(word) for word in words))


def spelled(surrogates: Sequence[Surrogate | None]) -> str:
    """The one text that :func:`read_surrogates` reads as these."""
    if tuple(surrogates) == read_surrogates(_SWEEP):
        return _SWEEP
    return "+".join(AS_TRAINED if one is None else str(one) for one in surrogates)


def read_surrogate(text: str) -> Surrogate:
    """A surrogate as it is typed, ``NAME`` or ``NAME-NUMBER``.

    Raises:
        UsageError: an unknown name, or a number that it does not take.
    """
    name, constant = (text, "") if text in _KINDS else text.rpartition("-")[::2]
    if name not in _KINDS:
        unknown = suggest(text, [AS_TRAINED, _SWEEP, *_KINDS], kind="surrogate")
        raise UsageError(unknown.message, hint=_HELP)
    kind = _KINDS[name]
    if not constant:
        return kind.made(name, kind.default)
    try:
        number = float(constant)
    except ValueError:
        number = math.nan
    if kind.default is None or not 0 < number < kind.below:
        reach = "above 0" if math.isinf(kind.below) else f"above 0 and below {kind.below:g}"
        takes = f"a number {reach}" if kind.default is not None else "no number"
        raise UsageError(f"The surrogate {name} takes {takes}, not '{constant}'.", hint=_HELP)
    return kind.made(name, number)
