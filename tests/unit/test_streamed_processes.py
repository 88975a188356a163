"""A streamed training of several processes, as torchrun starts them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import torchrun

from tdsnn.files import sha256_of
from tdsnn.training.loop import LOG
from tdsnn.training.state import STATE
from tests.shards import Mirror, mirror, rows

__all__ = ["mirror"]
SCRIPT = Path(__file__).parents[1] / "streamed_processes.py"


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_after_one_step_and_resumed_they_are_as_undisturbed(
    mirror: Mirror, tmp_path: Path
) -> None:
    """Also: what is no number in one process ends all, and none of them saves anything after that."""
    folder = mirror.folder.parent
    mirror.write(rows(60))
    done = torchrun(tmp_path, str(SCRIPT), str(folder), "60")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["stops"] == [{"epoch": 0, "step": 4}, {"epoch": 1, "step": 2}]
    ours, theirs = (
        sha256_of(folder / run / "checkpoint" / "model.safetensors") for run in ("parts", "whole")
    )
    assert ours == theirs
    logs = [(folder / run / LOG).read_text().splitlines() for run in ("parts", "whole")]
    parts, whole = ([json.loads(line)["task"] for line in log] for log in logs)
    assert parts == whole
    for said in (first["said"], second["said"]):
        assert said.startswith("The loss of epoch 1, step 1 is not finite (task ")
    assert not (folder / "diverging" / STATE).exists()
