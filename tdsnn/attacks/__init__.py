"""Attacks and noise, one per file, and what an attack is made of."""

from tdsnn.attacks._base import ATTACKS, DEFAULT_STRENGTHS, Attack, Outcome
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._gradient import BALLS, Ball, loss_gradient, respond
from tdsnn.attacks._norms import NORMS

__all__ = [
    "ATTACKS",
    "BALLS",
    "DEFAULT_STRENGTHS",
    "NORMS",
    "Attack",
    "Ball",
    "Outcome",
    "SampleDraws",
    "loss_gradient",
    "respond",
]
