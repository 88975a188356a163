"""Stored verdicts: the same bytes for the same verdicts, and damage is never read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from safetensors.numpy import save
from seed_zoo import TOPO, TWIN, judged, release, right, write_manifest

from tdsnn import verdicts
from tdsnn.errors import IntegrityError
from tdsnn.manifest import seeded
from tdsnn.schema import Release
from tdsnn.verdicts import CleanVerdicts


@pytest.fixture
def made(project: Path) -> Release:
    write_manifest(project, TOPO, twin=TWIN, alpha=0.03)
    return release(TOPO)


@given(st.lists(st.booleans(), min_size=1, max_size=70))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
def test_what_is_read_is_what_was_written(made: Release, verdict: list[bool]) -> None:
    path = judged(made, np.array(verdict))
    first = path.read_bytes()
    found = verdicts.read(made)
    assert found is not None
    assert found.scores.dtype == np.bool_
    assert found.scores.tolist() == verdict
    judged(made, np.array(verdict))
    assert path.read_bytes() == first


@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=70))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
def test_scores_of_a_task_with_more_than_right_and_wrong(made: Release, scores: list[float]) -> None:
    assert made.weights_sha256 is not None
    given_ = CleanVerdicts(
        weights_sha256=made.weights_sha256,
        data_digest="d" * 64,
        scores=np.array(scores, dtype=np.float32),
        task="angles",
    )
    path = verdicts.write(made.name, given_)
    found = verdicts.read(made)
    assert found is not None
    assert (found.task, found.scores.tolist()) == ("angles", scores)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="cannot be read"):
        verdicts.read(made)


def test_they_lie_beside_the_release(
    made: Release, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verdicts.read(made) is None
    assert judged(made, right(3)) == project / "zoo" / "verdicts" / f"{TOPO}.safetensors"
    other = release(seeded(TOPO, 2))
    assert judged(other, right(3)).parent == project / "zoo" / "verdicts"
    mine = tmp_path / "mine"
    (mine / "models").mkdir(parents=True)
    monkeypatch.setenv("TDSNN_ZOO", str(mine))
    (mine / "models" / "ours.toys.toml").write_text((project / "zoo" / "models" / f"{TOPO}.toml").read_text())
    assert judged(release("ours.toys"), right(3)) == mine / "verdicts" / "ours.toys.safetensors"


def test_ten_thousand_verdicts_are_small(made: Release) -> None:
    assert judged(made, right(700, n=10_000)).stat().st_size < 2_000


def test_verdicts_of_other_weights_count_as_none(made: Release) -> None:
    judged(made, right(3))
    newer = replace(made, files=(replace(made.files[0], sha256="e" * 64),))
    assert verdicts.read(newer) is None
    assert verdicts.read(made) is not None


def test_every_flipped_or_missing_byte_is_noticed(made: Release) -> None:
    path = judged(made, right(3, n=60))
    whole = path.read_bytes()
    for place in range(len(whole)):
        for damaged in (
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
            whole[:place],
        ):
            path.write_bytes(damaged)
            with pytest.raises(IntegrityError, match="cannot be read") as caught:
                verdicts.read(made)
            assert "tdsnn-zoo publish RUN_DIR" in caught.value.hint


@pytest.mark.parametrize(
    "about",
    [
        '{"schema": 2}',
        "[]",
        "[" * 100_000,
        '{"schema": 1, "weights_sha256": "a", "data_digest": "b", "n": 1000000000000000, "digest": "c"}',
        '{"schema": 1, "weights_sha256": "a", "data_digest": "b", "n": "8", "digest": "c"}',
        '{"schema": 1, "weights_sha256": "a", "data_digest": "b", "n": 8, "digest": "c"}',
    ],
)
def test_what_was_not_written_by_this_code_is_refused(made: Release, about: str) -> None:
    path = judged(made, right(3))
    path.write_bytes(save({"right": np.zeros(1, dtype=np.uint8)}, metadata={"about": about}))
    with pytest.raises(IntegrityError):
        verdicts.read(made)


def test_bits_beyond_the_last_image_are_refused(made: Release) -> None:
    found = CleanVerdicts(weights_sha256="a", data_digest="b", scores=np.ones(3, dtype=bool))
    path = judged(made, found.scores)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(IntegrityError, match="digest"):
        verdicts.read(made)
