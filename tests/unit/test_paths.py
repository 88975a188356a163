"""Folders of the project where the environment names none that can be had."""

from __future__ import annotations

import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tdsnn import paths, store
from tdsnn.errors import UsageError


@pytest.mark.parametrize(
    ("variable", "folder"),
    [
        ("TDSNN_ZOO", paths.zoo_folders),
        ("TDSNN_CACHE", paths.cache_dir),
        ("TDSNN_RUNS", paths.runs_dir),
        ("TDSNN_DATA", paths.data_dir),
        ("XDG_CACHE_HOME", paths.cache_dir),
    ],
)
def test_a_home_folder_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, variable: str, folder: Callable[[], Any]
) -> None:
    monkeypatch.delenv("TDSNN_CACHE")
    monkeypatch.setenv(variable, "~nosuchuser/models")
    with pytest.raises(UsageError, match=f"{variable} names '~nosuchuser/models'") as caught:
        folder()
    assert f"export {variable}=" in caught.value.hint


def test_a_user_without_name_and_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that was started for a number no account has."""

    def unknown(number: int) -> None:
        raise KeyError(number)

    for variable in ("HOME", "TDSNN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(UsageError, match="no HOME") as caught:
        paths.cache_dir()
    assert "export TDSNN_CACHE=" in caught.value.hint
    monkeypatch.setenv("TDSNN_CACHE", "~/cache")
    with pytest.raises(UsageError, match="TDSNN_CACHE names '~/cache'"):
        paths.cache_dir()


def test_a_path_that_was_typed() -> None:
    with pytest.raises(UsageError, match="There is no path '~nosuchuser/run'"):
        store.locate("~nosuchuser/run")
    assert paths.expanded("~/run") == Path.home() / "run"


def test_an_extra_is_installed_from_where_the_project_is(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert paths.install_command("train") == f"pip install -e '{project}[train]'"
    monkeypatch.setattr(paths, "is_checkout", lambda: False)
    assert paths.install_command("train") == "pip install 'tdsnn-zoo[train]'"
