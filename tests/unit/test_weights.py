"""Checkpoint files: exact round trips, and refusal of everything that differs from what was promised."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import structs
from safetensors.torch import load_file, save_file
from tiny import edited

from tdsnn.errors import IntegrityError, TdsnnError, UsageError
from tdsnn.files import sha256_of, write_atomic
from tdsnn.weights import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    CheckpointConfig,
    check_state,
    read_checkpoint,
    save_checkpoint,
)

CONFIG = CheckpointConfig(
    name="net.digits",
    architecture="net",
    arguments={"width": 2},
    dataset="digits",
    timesteps=4,
    sheets={
        "layer1.0": {
            "shape": [1, 2, 1],
            "size_mm": 2.0,
            "neighbourhood_mm": 1.0,
            "seed": 0,
            "preparation": "retinotopic",
        }
    },
)


def tensors() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    weight = torch.arange(6.0).reshape(2, 3)
    state = {"weight": weight.T, "tied": weight, "steps": torch.tensor(3)}
    return state, {"layer1.0": torch.tensor([[0.0, 0.5], [1.0, 1.5]])}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    state, positions = tensors()
    save_checkpoint(tmp_path / "saved", state=state, positions=positions, config=CONFIG)
    return tmp_path / "saved"


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / CONFIG_FILE
    document = json.loads(path.read_text())
    change(document)
    path.write_text(edited(json.dumps(document)))


def replace_tensors(folder: Path, values: dict[str, torch.Tensor]) -> None:
    path = folder / WEIGHTS_FILE
    save_file(values, path)
    pinned = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    rewrite(folder, lambda document: document.update(weights=pinned))


def test_round_trip(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    state, positions = tensors()
    assert checkpoint.config == CONFIG
    assert checkpoint.state.keys() == state.keys()
    for key, value in state.items():
        assert checkpoint.state[key].dtype == value.dtype
        assert torch.equal(checkpoint.state[key], value)
    assert torch.equal(checkpoint.positions["layer1.0"], positions["layer1.0"])
    assert sorted(item.name for item in folder.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (torch.tensor([[1.0, 0.5], [2**-14, -65504.0]]), torch.float16),
        (torch.tensor([[1.0, 1.0 + 2**-12]]), torch.float32),
        (torch.tensor([[70000.0, 1.0]]), torch.float32),
        (torch.tensor([1.0, 0.5]), torch.float32),
        (torch.tensor([[1.0, 0.5]], dtype=torch.float64), torch.float64),
        (torch.tensor([[1, 2]]), torch.int64),
    ],
)
def test_half_precision_is_used_where_it_changes_nothing(
    tmp_path: Path, value: torch.Tensor, stored: torch.dtype
) -> None:
    sheets = tensors()[1]
    save_checkpoint(tmp_path, state={"weight": value}, positions=sheets, config=CONFIG)
    assert load_file(tmp_path / WEIGHTS_FILE)["model.weight"].dtype == stored
    read = read_checkpoint(tmp_path).state["weight"]
    assert read.dtype == value.dtype
    assert torch.equal(read, value)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_neither_written_nor_read(
    folder: Path, tmp_path: Path, bad: float
) -> None:
    """Spikes would hide them: what is no number reaches no threshold."""
    state, positions = tensors()
    state["tied"][1, 2] = bad
    with pytest.raises(UsageError, match="in the tensor 'weight' that are not finite"):
        save_checkpoint(tmp_path / "new", state=state, positions=positions, config=CONFIG)
    assert not (tmp_path / "new").exists()
    stored = {f"model.{key}": value.clone().contiguous() for key, value in state.items()}
    stored["sheets.layer1.0.positions"] = positions["layer1.0"]
    replace_tensors(folder, stored)
    with pytest.raises(IntegrityError, match=r"in the tensor '(weight|tied)' that are not finite"):
        read_checkpoint(folder)


@pytest.mark.parametrize("arguments", [{"width": torch.ones(1)}, {"width": float("nan")}, {"width": {1j}}])
def test_arguments_that_are_no_json_are_not_written(tmp_path: Path, arguments: dict[str, Any]) -> None:
    state, positions = tensors()
    config = structs.replace(CONFIG, arguments=arguments)
    with pytest.raises(UsageError, match="cannot be written as JSON"):
        save_checkpoint(tmp_path / "new", state=state, positions=positions, config=config)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_permissions_of_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    state, positions = tensors()
    before = os.umask(mask)
    try:
        save_checkpoint(tmp_path / "saved", state=state, positions=positions, config=CONFIG)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "saved").iterdir()} == {mode}


@pytest.mark.parametrize("full_at", [WEIGHTS_FILE, CONFIG_FILE])
@pytest.mark.parametrize("exists", [True, False])
def test_a_full_disk_leaves_what_was_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_at: str, exists: bool
) -> None:
    target = folder if exists else tmp_path / "deep" / "new"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write = Path.write_bytes

    def fail(path: Path, data: bytes) -> int:
        if full_at in path.name:
            write(path, data[:7])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", fail)
    state, positions = tensors()
    state["steps"] += 1
    with pytest.raises(TdsnnError, match="could not be written: No space left on device") as caught:
        save_checkpoint(target, state=state, positions=positions, config=CONFIG)
    assert "free space" in caught.value.hint
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not (tmp_path / "deep").exists(), "nor is an empty folder left"


def test_same_content_gives_same_bytes(folder: Path, tmp_path: Path) -> None:
    state, positions = tensors()
    again = dict(reversed(state.items()))
    save_checkpoint(tmp_path / "again", state=again, positions=positions, config=CONFIG)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_altered_weights_show_both_hashes(folder: Path) -> None:
    path = folder / WEIGHTS_FILE
    expected = sha256_of(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="is altered") as caught:
        read_checkpoint(folder)
    assert WEIGHTS_FILE in caught.value.message
    assert expected in caught.value.message
    assert sha256_of(path) in caught.value.message


def test_truncated_weights(folder: Path) -> None:
    path = folder / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="is truncated"):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(IntegrityError, match=f"{name}' is missing"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.update(schema=2), "needs 1 for 'schema', not 2"),
        (lambda document: document.update(dataset=4), "a string for 'dataset', not 4"),
        (lambda document: document.pop("timesteps"), "lacks the key 'timesteps'"),
        (lambda document: document.update(extra=1), "unknown key 'extra'"),
        (
            lambda document: document.update(timesteps="4"),
            "a whole number of at least 1 for 'timesteps', not '4'",
        ),
        (lambda document: document["weights"].pop("sha256"), "lacks the key 'weights.sha256'"),
        (lambda document: document["sheets"]["layer1.0"].pop("size_mm"), "key 'sheets.layer1.0.size_mm'"),
        (lambda document: document["sheets"]["layer1.0"].update(unit_mm="far"), "'sheets.layer1.0.unit_mm'"),
        (lambda document: document["sheets"]["layer1.0"].update(shape=[1, 2]), "a list of 3 values for"),
        (lambda document: document.update(sheets={}), "sheet of layer 'layer1.0' in only one"),
    ],
)
def test_bad_config(folder: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    rewrite(folder, change)
    with pytest.raises(IntegrityError, match=message):
        read_checkpoint(folder)


def test_an_edited_config_is_refused_and_one_of_before_there_was_a_digest_is_read(folder: Path) -> None:
    path = folder / CONFIG_FILE
    document = json.loads(path.read_text())
    document["arguments"] |= {"v_threshold": 1.5}
    path.write_text(json.dumps(document))
    with pytest.raises(IntegrityError, match="was changed since it was saved") as caught:
        read_checkpoint(folder)
    assert "save_pretrained" in caught.value.hint
    for number in ("NaN", "1e999"):
        path.write_text(json.dumps(document).replace("1.5", number))
        with pytest.raises(IntegrityError, match="was changed since it was saved"):
            read_checkpoint(folder)
    del document["sha256"]
    path.write_text(json.dumps(document))
    assert read_checkpoint(folder).config.arguments["v_threshold"] == 1.5


def test_config_that_is_not_json(folder: Path) -> None:
    (folder / CONFIG_FILE).write_text("[")
    with pytest.raises(IntegrityError, match="not valid JSON"):
        read_checkpoint(folder)


def test_not_safetensors(folder: Path) -> None:
    path = folder / WEIGHTS_FILE
    path.write_bytes(b"pickle")
    pinned = {"size": 6, "sha256": sha256_of(path)}
    rewrite(folder, lambda document: document.update(weights=pinned))
    with pytest.raises(IntegrityError, match="not a safetensors file"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"other": torch.zeros(1)}, "unexpected tensor 'other'"),
        ({"sheets.layer1.0.positions": torch.zeros(2, 3)}, "positions of layer 'layer1.0'"),
        ({"sheets.layer1.0.positions": torch.zeros(2, 2, dtype=torch.float64)}, "positions of layer"),
        ({"sheets.layer1.0.positions": torch.full((2, 2), torch.nan)}, "need finite"),
    ],
)
def test_bad_tensors(folder: Path, values: dict[str, torch.Tensor], message: str) -> None:
    replace_tensors(folder, values)
    with pytest.raises(IntegrityError, match=message):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, "lacks the tensor 'w'"),
        ({"w": torch.zeros(2), "x": torch.zeros(1)}, "unexpected tensor 'x'"),
        ({"w": torch.zeros(3)}, r"'w' .* \(3,\), but the model needs torch\.float32 \(2,\)"),
        ({"w": torch.zeros(2, dtype=torch.float64)}, "float64"),
    ],
)
def test_state_must_fit(found: dict[str, torch.Tensor], message: str) -> None:
    check_state({"w": torch.ones(2)}, {"w": torch.zeros(2)}, source=Path("folder"))
    with pytest.raises(IntegrityError, match=message):
        check_state(found, {"w": torch.zeros(2)}, source=Path("folder"))


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    write_atomic(blocker, b"old")
    with pytest.raises(TdsnnError, match="could not be written"):
        write_atomic(blocker / "below", b"new")
    assert blocker.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [blocker]
