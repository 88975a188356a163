"""A folder that keeps finished cells, so that a benchmark can go on, and the result at the end."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tdsnn.errors import IntegrityError
from tdsnn.files import digest_of, parse_json, read_json, write_atomic
from tdsnn.results import Result

_CHANGED = "its content was changed"
_SEAL = "sha256"
"""Name of the array that has the digest of all others."""
_DOCUMENT = "document"
"""Name of the array that has a measurement's plain values as JSON, beside its samples."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of a cell, how long they took, and the checks that let them pass."""

    values: NDArray[Any]
    """(k,) of the first k samples; k is n in a finished cell. Of a classifier bool, right or not."""
    seconds: float
    gates: tuple[Mapping[str, Any], ...] = ()


class ResultFolder:
    """A folder with one file for each cell, and the result at the end.

    ``cells/KEY.safetensors`` holds the scores of the batches that are done, so an interrupted run goes on at
    the next batch. A key belongs to one content, so that what several processes write agrees. ``result.json``
    and ``samples.safetensors`` appear at the end.

    Args:
        cells: where the cells are, if they are shared with other results.
    """

    def __init__(self, folder: Path, *, cells: Path | None = None) -> None:
        self.folder = folder
        self._cells = folder / "cells" if cells is None else cells

    def read_cell(self, key: str, n: int, *, batch_size: int) -> Scores | None:
        """Scores of a cell of n samples as far as it is done, None if it was not begun.

        Raises:
            IntegrityError: the file is damaged.
        """
        path = self._cell(key)
        if not path.is_file():
            return None
        with _readable(path):
            arrays = _unsealed(path.read_bytes())
            scores = Scores(
                values=arrays["scores"],
                seconds=float(arrays["seconds"][0]),
                gates=tuple(parse_json(arrays["gates"].tobytes())),
            )
        if not 0 <= scores.seconds < math.inf:
            raise _damaged(path, f"it took {scores.seconds} seconds")
        done = scores.values.size
        if scores.values.shape != (done,) or done > n or (done < n and done % batch_size):
            raise _damaged(path, f"it holds shape {scores.values.shape}, not ({n},)")
        return scores

    def write_cell(self, key: str, scores: Scores) -> None:
        """Keep the scores of a cell as far as it is done."""
        arrays = {
            "scores": scores.values,
            "seconds": np.array([scores.seconds]),
            "gates": np.frombuffer(json.dumps(scores.gates).encode(), dtype=np.uint8),
        }
        write_atomic(self._cell(key), _sealed(arrays))

    def read_document(self, key: str) -> Any:
        """What :meth:`write_document` kept under a key, None if nothing.

        Raises:
            IntegrityError: the file is damaged.
        """
        path = self._document(key)
        if not path.is_file():
            return None
        with _readable(path):
            document = read_json(path)
            if document["sha256"] != digest_of(document["content"]):
                raise ValueError(_CHANGED)
        return document["content"]

    def write_document(self, key: str, document: Any) -> None:
        """Keep plain JSON values that took long to compute."""
        sealed = {"sha256": digest_of(document), "content": document}
        write_atomic(self._document(key), json.dumps(sealed, allow_nan=False).encode())

    def read_measurement(self, key: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
        """What :meth:`write_measurement` kept under a key, None if nothing.

        Raises:
            IntegrityError: the file is damaged.
        """
        path = self._cell(key)
        if not path.is_file():
            return None
        with _readable(path):
            arrays = _unsealed(path.read_bytes())
            document = parse_json(arrays.pop(_DOCUMENT).tobytes())
        return document, arrays

    def write_measurement(
        self, key: str, document: Mapping[str, Any], samples: Mapping[str, NDArray[Any]]
    ) -> None:
        """Keep what a time metric found: plain JSON values, and (n,) for each key of its samples."""
        text = json.dumps(document, allow_nan=False).encode()
        arrays = {**samples, _DOCUMENT: np.frombuffer(text, dtype=np.uint8)}
        write_atomic(self._cell(key), _sealed(arrays))

    def write_result(
        self,
        result: Result,
        scores: Mapping[str, NDArray[Any]],
        samples: Mapping[str, NDArray[Any]] | None = None,
        places: NDArray[np.int64] | None = None,
    ) -> None:
        """Write ``result.json`` and, with the scores of each cell, ``samples.safetensors``.

        Args:
            scores: cell key to (n,), bool as 0 and 1. The arrays are named ``MODEL/ATTACK[:VARIANT]/EPS``;
                ``indices`` says which images of the split they are about.
            samples: more arrays (n,) by their names, ``MODEL/METRIC[:VARIANT]/KEY``.
            places: (n,) those images; None for the first n.
        """
        indices = np.arange(int(result.settings["n"]), dtype=np.int64) if places is None else places
        arrays: dict[str, NDArray[Any]] = {"indices": indices}
        for cell in result.cells:
            if cell.key in scores:
                values = scores[cell.key]
                name = f"{cell.model}/{cell.title}/{cell.eps_255:g}"
                arrays[name] = values.astype(np.uint8) if values.dtype == np.bool_ else values
        write_atomic(self.folder / "samples.safetensors", _packed({**arrays, **(samples or {})}))
        text = json.dumps(result.document(), indent=2, allow_nan=False) + "\n"
        write_atomic(self.folder / "result.json", text.encode())

    def _cell(self, key: str) -> Path:
        return self._cells / f"{key}.safetensors"

    def _document(self, key: str) -> Path:
        return self._cells / f"{key}.json"


def _sealed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as safetensors, with a digest of all of them."""
    seal = np.frombuffer(_digest(arrays), dtype=np.uint8)
    return _packed({**arrays, _SEAL: seal})


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    # Of an array that is a view of another, safetensors writes what lies in memory, not its values.
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def _unsealed(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays that :func:`_sealed` was given.

    Raises:
        SafetensorError, KeyError, ValueError: something was changed since.
    """
    arrays = load(content)
    seal = arrays.pop(_SEAL)
    if seal.tobytes() != _digest(arrays):
        raise ValueError(_CHANGED)
    return arrays


def _digest(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(json.dumps([name, str(array.dtype), array.shape]).encode() + array.tobytes())
    return found.digest()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what reading a stored file raises inside the block into a sentence about it."""
    try:
        yield
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> IntegrityError:
    return IntegrityError(
        f"The stored cell {path} cannot be read: {reason}.",
        hint=f"Remove it, and the same command computes it anew: rm {quote(str(path))}",
    )
