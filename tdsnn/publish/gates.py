"""What a release must pass before anybody else gets it."""

from __future__ import annotations

import numpy as np
from scipy.stats import hypergeom

from tdsnn import zoo
from tdsnn.benchmark.gates import Gate, check_model
from tdsnn.data._base import load_split
from tdsnn.errors import GateError
from tdsnn.evaluation import clean, evaluate
from tdsnn.manifest import load_release, resolve
from tdsnn.progress import Progress, silent
from tdsnn.tasks._base import TASKS

SAMPLE = 1000
"""Test images on which the stored accuracy must show again."""
RISK = 1e-3
"""Share of faithful models that the accuracy gate would refuse."""
_GATED = 32


def check_release(name: str, *, progress: Progress = silent) -> list[Gate]:
    """Load a zoo entry strictly, look for state between calls, and measure its accuracy on a sample.

    The stored accuracy is over the whole test split of N images, K of them right. Of ``SAMPLE`` images drawn
    without replacement, the number right then follows the hypergeometric distribution; the gate refuses what
    lies more than one image outside its central 99.9 %, which is 2 to 3 points from the stored accuracy.

    Args:
        progress: called with images done and images in all.

    Raises:
        GateError: the model failed.
        MissingError: the weights or the dataset are not on this machine and not to be had.
        IntegrityError: files are not those of the release, or do not fit the architecture.
    """
    release, manifest = load_release(name), resolve(name)
    opened = zoo.open_model(manifest.name)
    test = load_split(manifest.dataset, "test")
    stored = release.metrics.get("clean_accuracy", {}) if release else {}
    if stored.get("n") != len(test.labels):
        raise GateError(f"The release of {manifest.name} has no accuracy over the whole test split.")
    indices = np.sort(np.random.default_rng(0).permutation(len(test.labels))[:SAMPLE])
    passed = check_model(opened.model, test.take(indices[:_GATED])[0], num_classes=opened.model.num_classes)
    opened.model.compile_operators()
    judge = clean(opened.model, TASKS.load(test.task))
    scores = evaluate(judge, test, device=opened.model.mean.device, rows=indices, progress=progress)
    right, stated = int(scores.sum()), float(stored["value"])
    return [*passed, _accuracy_gate(manifest.name, right, len(indices), stated, len(test.labels))]


def _accuracy_gate(name: str, right: int, n: int, stored_percent: float, total: int) -> Gate:
    expected = hypergeom(total, round(stored_percent * total / 100), n)
    # One image more, because another processor may round a spike the other way.
    low, high = 100 * (expected.ppf(RISK / 2) - 1) / n, 100 * (expected.isf(RISK / 2) + 1) / n
    measured = 100 * right / n
    if not low <= measured <= high:
        raise GateError(
            f"The gate 'stored accuracy' refused {name}: {measured:.2f} % of {n} test images are right; "
            f"{low:.1f} to {high:.1f} % would fit the {stored_percent:.2f} % that the release states."
        )
    return Gate(
        name=f"stored accuracy, {n} images",
        measured=abs(measured - stored_percent),
        limit=max(high - stored_percent, stored_percent - low),
        unit="points",
    )
