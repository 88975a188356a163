"""Suites: which attacks, strengths, time metrics, images and checks a row of the leaderboard stands for.

A suite is one file of ``benchmarks/suites``, frozen under its name: ``suites.lock`` beside it has its SHA-256
(``sha256sum -c suites.lock`` checks them all), and a changed suite is a new version with a new name::

    summary = "What it is for."
    n = 1000                     # images, from the first of the test split on
    eps = [1, "8/255"]           # strengths of the attacks that state none

    [[attacks]]
    attack = "pgd:steps=20"      # as of `tdsnn-zoo bench --attack`

    [[attacks]]
    attack = "square"
    on = "survivors"             # only images that all attacks before it left standing; default: "all"

    [[metrics]]
    metric = "entropy:steps=5+10"   # as of `tdsnn-zoo bench --metric`

    [masking]                    # what the tests for masked gradients may spend; without it none are made
    images = 128

A file of one's own is named by its path, and is no official suite.
"""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

from msgspec import Meta

from tdsnn import paths
from tdsnn.errors import IntegrityError, UsageError
from tdsnn.files import read_toml, sha256_of
from tdsnn.registry import suggest
from tdsnn.schema import Seed, Table
from tdsnn.validation import check

LOCK = "suites.lock"
_Images = Annotated[int, Meta(ge=1, le=1_000_000)]


class SuiteAttack(Table, frozen=True, kw_only=True):
    """One of ``[[attacks]]``."""

    attack: str
    """``NAME`` or ``NAME:KEY=VALUE,...``."""
    on: Literal["all", "survivors"] = "all"


class SuiteMetric(Table, frozen=True, kw_only=True):
    """One of ``[[metrics]]``."""

    metric: str
    """Time metric, ``NAME`` or ``NAME:KEY=VALUE,...``."""


class Masking(Table, frozen=True, kw_only=True):
    """What the tests for masked gradients may spend; see :mod:`tdsnn.benchmark.masking`."""

    images: _Images = 128
    """Images that are right without attack, for each test that runs attacks of its own."""
    steps: Annotated[int, Meta(ge=1, le=10_000)] = 50
    """Steps of an attack of those tests; twice as many where a test doubles them."""
    points: Annotated[int, Meta(ge=1, le=100_000)] = 200
    """Random points of the ball, or directions, for each image."""


class Suite(Table, frozen=True, kw_only=True):
    """A suite file."""

    summary: str
    n: _Images = 1000
    seed: Seed = 0
    batch_size: Annotated[int, Meta(ge=1, le=65_536)] = 100
    eps: tuple[float | str, ...] = ()
    attacks: tuple[SuiteAttack, ...] = ()
    metrics: tuple[SuiteMetric, ...] = ()
    masking: Masking | None = None


class NamedSuite(Table, frozen=True, kw_only=True):
    """A suite and what it is known by."""

    name: str
    """Of an official suite, else the path of its file."""
    sha256: str
    """Of the file."""
    official: bool
    suite: Suite


def suite_names() -> tuple[str, ...]:
    """Official suites, sorted."""
    return tuple(sorted(path.stem for path in _folder().glob("*.toml")))


def read_suite(name: str | os.PathLike[str]) -> NamedSuite:
    """An official suite by name, or a file by its path (text with a separator, or ending in ``.toml``).

    Raises:
        UsageError: no such suite or file, or one that is no suite.
        IntegrityError: an official suite is not what ``suites.lock`` says.
    """
    text = os.fspath(name)
    official = not (isinstance(name, Path) or os.sep in text or text.endswith(".toml"))
    path = _folder() / f"{text}.toml" if official else paths.expanded(text)
    if official and text not in suite_names():
        raise suggest(text, suite_names(), kind="suite", command="tdsnn-zoo bench --help")
    if not path.is_file():
        raise UsageError(
            f"There is no suite file {path}.", hint=f"The official ones: {', '.join(suite_names())}"
        )
    digest = sha256_of(path)
    if official:
        _require_locked(text, path, digest)
    subject = f"The suite '{text}'"
    try:
        document = read_toml(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{subject} is not TOML: {error}.") from error
    suite = check(document, Suite, name=subject)
    if not (suite.attacks or suite.metrics):
        raise UsageError(
            f"{subject} needs at least 1 attack or metric.", hint="Add a table [[attacks]] or [[metrics]]."
        )
    return NamedSuite(name=text, sha256=digest, official=official, suite=suite)


def _folder() -> Path:
    return paths.bundled("benchmarks", "suites")


def _require_locked(name: str, path: Path, digest: str) -> None:
    lines = (path.parent / LOCK).read_text(encoding="utf-8").splitlines()
    locked = {file: expected for expected, file in (line.split() for line in lines)}
    expected = locked.get(path.name, "none")
    if digest != expected:
        raise IntegrityError(
            f"The suite '{name}' was edited: {path} has sha256 {digest}, and {LOCK} says {expected}.",
            hint="A changed suite is a new one: restore the file, or name yours by its path, "
            f"{quote(f'./{path.name}')}",
        )
