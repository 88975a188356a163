"""Attacks and noise, one per file, and what an attack is made of."""

from tdsnn.attacks._ascent import GradientAttack
from tdsnn.attacks._balls import BALLS, Ball
from tdsnn.attacks._base import ATTACKS, DEFAULT_STRENGTHS, Attack, Outcome
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._gradient import loss_gradient, respond
from tdsnn.attacks._norms import NORMS
from tdsnn.attacks._objective import Objective

__all__ = [
    "ATTACKS",
    "BALLS",
    "DEFAULT_STRENGTHS",
    "NORMS",
    "Attack",
    "Ball",
    "GradientAttack",
    "Objective",
    "Outcome",
    "SampleDraws",
    "loss_gradient",
    "respond",
]
