"""How much a step asks of a GPU may only fall; ``python -m tests.device_counts`` shows where it is asked."""

from __future__ import annotations

import pytest
from device_counts import STEPS, TRAININGS, attack

pytestmark = pytest.mark.usefixtures("threads")

MOST = {
    "training step, twin": (898, 1),
    "training step, twin, AdamW, average": (220, 1),
    "training step, STC": (1338, 1),
    "training step, STC, under attack": (1688, 2),
    "training step, TDANN": (1691, 1),
    "training step, TopoLoss": (1795, 1),
    "PGD step": (214, 1),
}
"""Launches and waits."""


def test_every_kind_of_training_has_a_bound() -> None:
    assert set(TRAININGS) < set(STEPS) == set(MOST)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_launches_and_waits_no_more_than_it_did(name: str) -> None:
    found = STEPS[name]()
    launches, waits = MOST[name]
    assert found.waits <= waits, found.lines
    assert found.launches <= launches
    # Bounds that are far from what is needed would let things get worse unseen.
    assert found.launches > 0.9 * launches, "fewer launches: lower the bound"


@pytest.mark.parametrize("name", ["apgd", "sapgd"])
def test_other_searches_wait_once_a_step(name: str) -> None:
    """And a few times more at checkpoints."""
    assert attack(name).waits <= 2
