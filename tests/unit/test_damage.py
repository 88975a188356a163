"""Damaged files of every kind: one sentence each, and nothing altered is taken for what was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz import damaged, fuzz

from tdsnn import manifest
from tdsnn.errors import IntegrityError, TdsnnError, UsageError
from tdsnn.files import parse_json, parse_toml
from tdsnn.training import state as states


def test_no_damage_of_a_training_state_is_a_traceback_or_another_state(tmp_path: Path) -> None:
    state = {"position": {"epoch": 1, "step": 3}, "weights": torch.arange(40.0), "name": "a"}
    states.save_state(tmp_path, state)
    content, draws, refused = (tmp_path / states.STATE).read_bytes(), np.random.default_rng(0), 0
    for _ in range(150):
        (tmp_path / states.STATE).write_bytes(damaged(content, draws))
        refused += 1
        with suppress(IntegrityError):
            found = states.load_state(tmp_path)
            refused -= 1
            assert torch.equal(found.pop("weights"), state["weights"])
            assert found == {key: value for key, value in state.items() if key != "weights"}
    assert refused > 140


def test_a_state_whose_digest_cannot_be_found_is_damaged(tmp_path: Path) -> None:
    states.save_state(tmp_path, {"position": 3})
    content = (tmp_path / states.STATE).read_bytes()
    for altered in (content.replace(b"sha256", b"sha257"), content.rpartition(b"\nsha256")[0]):
        assert altered != content
        (tmp_path / states.STATE).write_bytes(altered)
        with pytest.raises(IntegrityError, match="is damaged"):
            states.load_state(tmp_path)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        (states.SETTINGS, states.read_settings),
        (states.OUTCOME, states.read_outcome),
        ("log.jsonl", lambda folder: states.read_log(folder / "log.jsonl")),
    ],
)
def test_no_damage_of_what_a_run_leaves_is_a_traceback(
    name: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    outcome = states.Outcome(
        name="tsresnet18.fashion_mnist",
        held_out_accuracy=0.9,
        n=10,
        data_digests={"train": "0" * 64},
        cpu_seconds=1.0,
        environment={"threads": 1},
    )
    states.write_settings(tmp_path, manifest.resolve("tsresnet18"))
    states.write_outcome(tmp_path, outcome)
    (tmp_path / "log.jsonl").write_text('{"epoch": 0, "task": 1.5}\n')
    content, draws = (tmp_path / name).read_bytes(), np.random.default_rng(1)
    hostile = [b"", b"null", b"[]", b"{}", b"3", b"[" * 50_000, b"\xff\xfe", b'{"name": [1]}', b"NaN"]
    for altered in [*hostile, *(damaged(content, draws) for _ in range(200))]:
        (tmp_path / name).write_bytes(altered)
        with suppress(TdsnnError):
            read(tmp_path)


@pytest.mark.parametrize("parse", [parse_json, parse_toml])
def test_depth_is_a_reason_and_no_crash(parse: Callable[[str], object]) -> None:
    for text in ("[" * 100_000, "a = " + "[" * 100_000, "a" + ".a" * 10_000 + " = 1"):
        with suppress(ValueError):
            parse(text)
    with pytest.raises(ValueError, match="too deeply"):
        parse("[" * 100_000 if parse is parse_json else "a = " + "[" * 100_000)


def test_a_manifest_is_a_sentence_whatever_is_in_it() -> None:
    text = (manifest.manifest_path("tsresnet18.fashion_mnist")).read_text(encoding="utf-8")
    draws = np.random.default_rng(2)
    for _ in range(200):
        with suppress(UsageError):
            manifest.parse("it", damaged(text.encode(), draws).decode(errors="replace"))


@pytest.mark.parametrize("text", [json.dumps({"a": 10**400}), "1e999", '"\\ud800"'])
def test_numbers_and_texts_at_the_edge_are_read_or_refused(text: str) -> None:
    with suppress(ValueError):
        parse_json(text)


def test_a_minute_of_damage_in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """``python -m tests.fuzz --seconds 60`` is the long one."""
    report = fuzz(seconds=60, seed=0, most=360)
    assert report.faults == []
    assert len(report.cases) >= 18
    assert all(report.refused[name] for name in report.cases)
