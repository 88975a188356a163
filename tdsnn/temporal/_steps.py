"""Settings that several time metrics have: numbers of time steps, and layers."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

MOST_STEPS = 999

Steps = Annotated[
    str,
    Meta(
        pattern=r"^(own|[1-9]\d{0,2})(\+(own|[1-9]\d{0,2}))*\Z",
        description=f"numbers of time steps from 1 to {MOST_STEPS}, joined by '+', or 'own' for the model's",
    ),
]
"""Numbers of time steps, e.g. ``5+10+30``; ``own`` is the model's T."""
Layers = Annotated[
    str,
    Meta(
        pattern=r"^[\w.]*(\+[\w.]+)*\Z",
        description="names of layers joined by '+', or nothing for all that have spikes",
    ),
]
"""Names of layers, e.g. ``layer1.0+layer4.1``; empty stands for all that have spikes."""


def steps_of(text: str, *, own: int) -> tuple[int, ...]:
    """The numbers that a setting of type :data:`Steps` names, ascending; ``own`` is the model's T."""
    return tuple(sorted({own if word == "own" else int(word) for word in text.split("+")}))


def layer_names(text: str) -> tuple[str, ...]:
    """The layers that a setting of type :data:`Layers` names, in order."""
    return tuple(dict.fromkeys(text.split("+"))) if text else ()
