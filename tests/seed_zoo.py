"""A made-up zoo of a topographic entry and its twin with several released seeds and stored verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tdsnn import verdicts
from tdsnn.manifest import seeded, write_release
from tdsnn.schema import FileRecord, Release
from tdsnn.verdicts import CleanVerdicts

TOPO, TWIN = "topo.toys", "plain.toys"
N = 1003
DIGEST = "d" * 64
WRONG = {TOPO: (80, 95, 70), TWIN: (60, 66, 58)}
"""Images that each seed gets wrong."""
ALIGNMENT = {TOPO: (0.3, 0.35, 0.32), TWIN: (0.1, 0.12, 0.05)}
MANIFEST = """
summary = "A toy."
twin = "{twin}"
default = {default}
[model]
architecture = "sresnet18"
[data]
name = "{dataset}"
[topography]
alpha = {alpha}
"""


def write_manifest(
    project: Path, name: str, *, twin: str, alpha: float = 0.0, dataset: str = "toys", default: str = "false"
) -> None:
    text = MANIFEST.format(twin=twin, alpha=alpha, dataset=dataset, default=default)
    (project / "zoo" / "models" / f"{name}.toml").write_text(text, encoding="utf-8")


def right(wrong: int, *, seed: int = 0, n: int = N) -> NDArray[np.bool_]:
    """(n,) verdicts, all but ``wrong`` true."""
    found = np.ones(n, dtype=bool)
    found[np.random.default_rng(seed).permutation(n)[:wrong]] = False
    return found


def release(name: str, *, sha256: str = "", wrong: int = 0, alignment: float | None = None) -> Release:
    """Release an entry without verdicts; the sha256 of its weights is made of its name by default."""
    layers = {} if alignment is None else {"layer1.0": alignment - 0.05, "layer1.1": alignment + 0.05}
    accuracy = {"value": 100 * (N - wrong) / N, "unit": "%", "n": N, "interval": [0.0, 100.0]}
    made = Release(
        name=name,
        files=(FileRecord(path="model.safetensors", size=3, sha256=sha256 or name.encode().hex().zfill(64)),),
        metrics={"clean_accuracy": accuracy, "P(r, d)": {"unit": "correlation", "layers": layers}},
        provenance={},
    )
    write_release(made)
    return made


def judged(made: Release, verdict: NDArray[np.bool_], *, digest: str = DIGEST) -> Path:
    """Keep verdicts of a release."""
    sha256 = made.weights_sha256
    assert sha256 is not None
    return verdicts.write(made.name, CleanVerdicts(weights_sha256=sha256, data_digest=digest, scores=verdict))


def build(project: Path, *, seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    """Both entries with these seeds, judged."""
    write_manifest(project, TOPO, twin=TWIN, alpha=0.03, default="true")
    write_manifest(project, TWIN, twin=TOPO, default="true")
    for entry in (TOPO, TWIN):
        for seed in seeds:
            wrong, alignment = WRONG[entry][seed], ALIGNMENT[entry][seed]
            made = release(seeded(entry, seed), wrong=wrong, alignment=alignment)
            judged(made, right(wrong, seed=10 * seed + len(entry)))
    return project
