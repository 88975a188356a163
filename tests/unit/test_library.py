"""Which compiled operators are loaded: only what this user built and nobody can have changed since."""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tdsnn.files import exclusive
from tdsnn.kernels import _library

KEY, CONTENT = "0123456789abcdef0123", b"machine code"


@pytest.fixture
def built(cache: Path) -> Path:
    folder = _library.private_folder()
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    path = folder / f"{KEY}.{hashlib.sha256(CONTENT).hexdigest()}.so"
    path.write_bytes(CONTENT)
    path.chmod(0o700)
    return path


def find(path: Path) -> Path | None:
    return _library.find_built(path.parent, KEY)


def refused(path: Path, reason: str) -> None:
    with pytest.warns(UserWarning, match=f"is not loaded but built again: .*{reason}"):
        assert find(path) is None
    assert not path.is_symlink()
    assert not path.exists(), "it is built again once, and not doubted for ever"


def test_what_was_built_is_loaded_again(built: Path) -> None:
    assert find(built) == built
    assert _library.find_built(built.parent, KEY[::-1]) is None


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"!"])
def test_a_changed_file_is_built_again(built: Path, content: bytes) -> None:
    built.write_bytes(content)
    refused(built, "its content was changed")


@pytest.mark.parametrize("mode", [0o720, 0o702])
@pytest.mark.parametrize("part", ["file", "folder"])
def test_what_others_may_write_is_built_again(built: Path, mode: int, part: str) -> None:
    (built if part == "file" else built.parent).chmod(mode)
    refused(built, "others may write")


def test_what_another_user_owns_is_built_again(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.stat(built).st_uid  # noqa: PTH116
    monkeypatch.setattr(_library, "_user", lambda: owner + 1)
    monkeypatch.setattr(_library, "_ROOT", owner + 2)
    refused(built, "belongs to another user")


def test_a_link_is_built_again(built: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.so"
    elsewhere.write_bytes(CONTENT)
    built.unlink()
    built.symlink_to(elsewhere)
    refused(built, "is a link")
    assert elsewhere.exists()


def test_users_of_one_cache_do_not_share_what_runs(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = _library.private_folder()
    monkeypatch.setattr(_library, "_user", lambda: 4242)
    assert _library.private_folder() != own


def test_a_built_library_is_nobody_elses_to_write(cache: Path, tmp_path: Path) -> None:
    """A stand-in for the compiler, so that the test takes no half minute."""
    compiler = tmp_path / "c++"
    compiler.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\nprintf "machine code" > "$2"\n')
    compiler.chmod(0o755)
    folder = _library.private_folder()
    path = _library._build(str(compiler), folder, KEY)
    assert path.read_bytes() == CONTENT
    assert find(path) == path
    for part in (path, folder):
        assert not part.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def test_what_another_process_builds_is_waited_for(built: Path) -> None:
    aside = built.rename(built.with_suffix(".aside"))
    with ThreadPoolExecutor() as other, exclusive(built.parent):
        waiting = other.submit(_library._build, "no compiler", built.parent, KEY)
        with pytest.raises(TimeoutError):
            waiting.result(0.1)
        aside.rename(built)
    assert waiting.result() == built
