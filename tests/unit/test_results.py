"""The result schema and the folder that keeps finished cells."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from safetensors.numpy import load_file

from tdsnn.errors import IntegrityError
from tdsnn.files import digest_of
from tdsnn.result_folder import ResultFolder, Scores
from tdsnn.results import SCHEMA, Cell, Result, accuracy_figure

GATES = ({"name": "bounds", "measured": 0.0},)
RIGHT = np.array([True, False, True, True])


def _cell(key: str, *, error: str | None = None) -> Cell:
    return Cell(
        key=key,
        model="toy",
        attack="pgd",
        eps_255=0.5,
        norm="linf",
        settings={"steps": 10},
        accuracy=None if error else accuracy_figure(3, 4),
        clean_correct=3,
        survivors=None if error else 3,
        error=error,
    )


def test_an_accuracy_has_unit_n_and_interval() -> None:
    figure = accuracy_figure(3, 4)
    assert (figure.value, figure.unit, figure.n) == (75.0, "%", 4)
    assert 0 < figure.low < 75 < figure.high < 100


def test_a_digest_depends_on_values_not_on_key_order() -> None:
    assert digest_of({"a": 1, "b": [2, 3]}) == digest_of({"b": [2, 3], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})


def test_arrays_are_kept_whatever_their_order_in_memory(tmp_path: Path) -> None:
    """A column of a table has its values apart from each other, which safetensors would not see."""
    folder, table = ResultFolder(tmp_path), np.arange(12.0).reshape(4, 3)
    column = table[:, 1]
    folder.write_measurement("k1", {}, {"a": column})
    found = folder.read_measurement("k1")
    assert found is not None
    assert found[1]["a"].tolist() == column.tolist()
    folder.write_cell("k2", Scores(values=column, seconds=1.0))
    stored = folder.read_cell("k2", 4, batch_size=2)
    assert stored is not None
    assert stored.values.tolist() == column.tolist()
    result = Result(settings={"n": 4}, models=(), cells=(_cell("k2"),), comparisons=(), provenance={})
    folder.write_result(result, {"k2": column}, {"toy/b/c": table[::-1, 2]})
    arrays = load_file(tmp_path / "samples.safetensors")
    assert arrays["toy/pgd/0.5"].tolist() == column.tolist()
    assert arrays["toy/b/c"].tolist() == [11, 8, 5, 2]


def test_finished_cells_are_found_again(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path)
    assert folder.read_cell("k1", 4, batch_size=2) is None
    folder.write_cell("k1", Scores(values=RIGHT, seconds=1.25, gates=GATES))
    stored = ResultFolder(tmp_path).read_cell("k1", 4, batch_size=2)
    assert stored is not None
    assert (stored.seconds, stored.gates) == (1.25, GATES)
    assert stored.values.dtype == np.bool_
    np.testing.assert_array_equal(stored.values, RIGHT)
    assert [path.name for path in (tmp_path / "cells").iterdir()] == ["k1.safetensors"]


@pytest.mark.parametrize("keep", [0, 7, 60, -1])
def test_a_damaged_cell_is_named_and_never_used(tmp_path: Path, keep: int) -> None:
    folder = ResultFolder(tmp_path)
    folder.write_cell("k1", Scores(values=RIGHT, seconds=1.0))
    path = tmp_path / "cells" / "k1.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(IntegrityError, match=r"k1\.safetensors") as caught:
        folder.read_cell("k1", 4, batch_size=2)
    assert f"rm {path}" in caught.value.hint


@pytest.mark.parametrize("kind", ["cell", "document", "measurement"])
def test_no_changed_byte_changes_what_is_read(tmp_path: Path, kind: str) -> None:
    folder = ResultFolder(tmp_path)
    if kind == "cell":
        folder.write_cell("k1", Scores(values=RIGHT, seconds=1.0, gates=GATES))
        written = folder.read_cell("k1", 4, batch_size=2)
    elif kind == "document":
        folder.write_document("k1", {"accuracy": 75.0, "words": ["a", "b"]})
        written = folder.read_document("k1")
    else:
        folder.write_measurement("k1", {"value": 0.5}, {"samples": RIGHT})
        written = folder.read_measurement("k1")
    (path,) = (tmp_path / "cells").iterdir()
    content, refused = path.read_bytes(), 0
    for place in range(len(content)):
        altered = bytearray(content)
        altered[place] ^= 1 << place % 8
        path.write_bytes(altered)
        try:
            if kind == "cell":
                found = folder.read_cell("k1", 4, batch_size=2)
            else:
                found = getattr(folder, f"read_{kind}")("k1")
        except IntegrityError:
            refused += 1
        else:
            assert repr(found) == repr(written), f"byte {place}"
    assert refused > 0.9 * len(content)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_a_cell_that_took_no_time_that_can_be_is_refused(tmp_path: Path, seconds: float) -> None:
    folder = ResultFolder(tmp_path)
    folder.write_cell("k1", Scores(values=RIGHT, seconds=seconds))
    with pytest.raises(IntegrityError, match="seconds"):
        folder.read_cell("k1", 4, batch_size=2)


def test_a_cell_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path)
    folder.write_cell("k1", Scores(values=RIGHT, seconds=1.0))
    with pytest.raises(IntegrityError, match=r"\(4,\), not \(5,\)"):
        folder.read_cell("k1", 5, batch_size=3)


def test_a_cell_grows_by_whole_batches(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path)
    for values in (RIGHT[:2], RIGHT):
        folder.write_cell("k1", Scores(values=values, seconds=1.0))
        stored = folder.read_cell("k1", 4, batch_size=2)
        assert stored is not None
        np.testing.assert_array_equal(stored.values, values)
    folder.write_cell("k1", Scores(values=RIGHT[:3], seconds=1.0))
    with pytest.raises(IntegrityError, match=r"\(3,\), not \(4,\)"):
        folder.read_cell("k1", 4, batch_size=2)


def test_other_settings_of_an_attack_have_a_row_of_their_own(tmp_path: Path) -> None:
    cells = (_cell("k1"), replace(_cell("k2"), variant="steps=100"))
    result = Result(settings={"n": 4}, models=(), cells=cells, comparisons=(), provenance={})
    ResultFolder(tmp_path).write_result(result, {"k1": RIGHT, "k2": ~RIGHT})
    arrays = load_file(tmp_path / "samples.safetensors")
    np.testing.assert_array_equal(arrays["toy/pgd/0.5"], RIGHT)
    np.testing.assert_array_equal(arrays["toy/pgd:steps=100/0.5"], ~RIGHT)


def test_the_result_and_its_verdicts_are_written(tmp_path: Path) -> None:
    result = Result(
        settings={"n": 4, "seed": 0},
        models=({"name": "toy"},),
        cells=(_cell("k1"), _cell("k2", error="refused")),
        comparisons=(),
        provenance={"created": "now"},
    )
    ResultFolder(tmp_path).write_result(result, {"k1": RIGHT})
    document = json.loads((tmp_path / "result.json").read_text())
    assert document == json.loads(json.dumps(result.document()))
    assert document["schema"] == SCHEMA
    assert document["settings_digest"] == digest_of({"seed": 0, "n": 4})
    good, bad = document["cells"]
    assert good["accuracy"]["value"] == 75.0
    assert (bad["accuracy"], bad["survivors"], bad["error"]) == (None, None, "refused")
    arrays = load_file(tmp_path / "samples.safetensors")
    assert set(arrays) == {"indices", "toy/pgd/0.5"}
    np.testing.assert_array_equal(arrays["toy/pgd/0.5"], RIGHT)
    np.testing.assert_array_equal(arrays["indices"], np.arange(4))
