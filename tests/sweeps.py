"""A zoo folder with a small pair on digits, and sweeps over it."""

from __future__ import annotations

from pathlib import Path

import pytest

_MODEL = """
summary = "A small net."
twin = "{twin}"
[model]
architecture = "sresnet18"
[model.arguments]
width = 2
timesteps = 2
in_channels = 1
mean = [0.3]
std = [0.3]
neuron = {{ decay_input = false }}
[data]
name = "digits"
[topography]
alpha = {weight}
beta = {weight}
preparation = "pre-optimised"
attempts_per_unit = 1.0
cluster_units = 8
clusters = 2
[recipe]
optimizer = "muon"
epochs = 1
batch_size = 64
precision = "fp32"
weight_format = "fp16"
"""
PAIR = """
summary = "A pair."
[[runs]]
entry = "topo.digits"
[[runs]]
entry = "plain.digits"
"""


@pytest.fixture
def zoo_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Entries ``plain.digits`` and ``topo.digits``, each other's twins; runs go below the test's folder."""
    folder = tmp_path / "zoo"
    (folder / "models").mkdir(parents=True)
    for name, twin, weight in (("plain", "topo.digits", 0.0), ("topo", "plain.digits", 0.1)):
        (folder / "models" / f"{name}.digits.toml").write_text(_MODEL.format(twin=twin, weight=weight))
    monkeypatch.setenv("TDSNN_ZOO", str(folder))
    monkeypatch.setenv("TDSNN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Compiling the operators takes longer than these trainings.
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    return folder


def write(folder: Path, text: str, *, name: str = "pair") -> Path:
    """A sweep file."""
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path
