"""Manifests and releases: strict parsing, short names, deterministic files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tdsnn.errors import IntegrityError, UsageError
from tdsnn.manifest import list_models, load_release, parse, release_path, resolve, write_release
from tdsnn.types import FileRecord, Release

GOOD = """
summary = "A net."
default = true
twin = "net.digits"
[model]
architecture = "net"
[model.arguments]
timesteps = 4
[data]
name = "digits"
[topography]
alpha = 1
[recipe]
lr = 0.1
augmentation = ["crop", "flip"]
"""
RELEASE = Release(
    name="net.digits",
    files=(
        FileRecord(path="model.safetensors", size=3, sha256="a" * 64),
        FileRecord(path="config.json", size=2, sha256="b" * 64),
    ),
    metrics={"clean_accuracy": {"value": 91.5, "unit": "%", "n": 100, "interval": [84.4, 95.6]}},
    provenance={"code": "c" * 40},
    hub_repo="someone/net",
    hub_commit="d" * 40,
)


def add(project: Path, name: str, text: str = GOOD) -> None:
    (project / "zoo" / "models" / f"{name}.toml").write_text(text)


def test_good_manifest() -> None:
    manifest = parse("net.digits", GOOD)
    assert (manifest.name, manifest.architecture, manifest.dataset) == ("net.digits", "net", "digits")
    assert manifest.arguments == {"timesteps": 4}
    assert manifest.topographic
    assert type(manifest.topography.alpha) is float
    assert manifest.topography.beta == 0.0
    assert manifest.recipe.augmentation == ("crop", "flip")
    scaled = parse("net.digits", GOOD.replace("alpha = 1", 'unit_mm = {"layer4.0" = 7}'))
    assert scaled.topography.unit_mm == {"layer4.0": 7.0}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'summary = "A net."',
            'sumary = "A net."',
            "unknown key 'sumary' in the top level; did you mean 'summary'",
        ),
        ("lr = 0.1", "lrr = 0.1", "unknown key 'lrr' in .recipe.; did you mean 'lr'"),
        ("alpha = 1", "gamma_ray = 1", "unknown key 'gamma_ray' in .topography.\\."),
        ('name = "digits"', 'nam = "digits"', "unknown key 'nam' in .data.; did you mean 'name'"),
        ('architecture = "net"', "", "lacks the key 'model.architecture'"),
        ('twin = "net.digits"', "", "lacks the key 'twin'"),
        ("lr = 0.1", 'lr = "fast"', "needs a number for 'recipe.lr', not 'fast'"),
        ("lr = 0.1", "lr = -0.1", "at least 0 for 'recipe.lr'"),
        ("lr = 0.1", "lr = nan", "finite number"),
        ("lr = 0.1", "epochs = 1.5", "needs a whole number for 'recipe.epochs'"),
        ("lr = 0.1", "epochs = true", "needs a whole number for 'recipe.epochs'"),
        ('["crop", "flip"]', '["crop", 3]', "needs a list of strings for 'recipe.augmentation'"),
        ("default = true", "default = 1", "needs true or false for 'default'"),
        ("alpha = 1", 'unit_mm = {"layer4.0" = "far"}', "a number for 'topography.unit_mm.layer4.0'"),
        ("alpha = 1", "unit_mm = 7", "needs a table for 'topography.unit_mm'"),
        ("[data]", "[data", "is not valid TOML"),
    ],
)
def test_bad_manifest_says_where(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(UsageError, match=message):
        parse("net.digits", GOOD.replace(old, new, 1))


def test_names(project: Path) -> None:
    add(project, "net.digits")
    add(project, "net.digits-s1", GOOD.replace("default = true", ""))
    assert list_models() == ("net.digits", "net.digits-s1")
    assert resolve("net").name == "net.digits"
    assert resolve("net.digits-s1").name == "net.digits-s1"


def test_other_seeds_need_no_file(project: Path) -> None:
    add(project, "net.digits", GOOD.replace('twin = "net.digits"', 'twin = "plain.digits"'))
    add(project, "plain.digits", GOOD.replace("default = true", ""))
    base, other = resolve("net.digits"), resolve("net.digits-s12")
    assert (other.name, other.default) == ("net.digits-s12", False)
    assert other.twin == f"{base.twin}-s12"
    assert other.recipe.seed == base.recipe.seed + 12
    assert other.topography.sheet_seed == base.topography.sheet_seed + 12
    assert (
        replace(
            other,
            name=base.name,
            default=True,
            twin=base.twin,
            recipe=base.recipe,
            topography=base.topography,
        )
        == base
    )
    assert list_models() == ("net.digits", "plain.digits"), "only what was released is listed"
    write_release(replace(RELEASE, name="net.digits-s12"))
    assert list_models() == ("net.digits", "net.digits-s12", "plain.digits")
    assert load_release("net.digits-s12") is not None
    for wrong in ("net.digits-s0", "net.digits-s01", "net.other-s1", "net-s1"):
        with pytest.raises(UsageError, match="no model called"):
            resolve(wrong)


def test_unknown_name_suggests(project: Path) -> None:
    add(project, "net.digits")
    with pytest.raises(UsageError, match=r"Did you mean net\.digits") as caught:
        resolve("net.digit")
    assert caught.value.hint.endswith("tdsnn-zoo list")


@pytest.mark.parametrize(("second", "count"), [(True, "2 default variants"), (False, "no default variant")])
def test_ambiguous_bare_name(project: Path, second: bool, count: str) -> None:
    text = GOOD if second else GOOD.replace("default = true", "")
    add(project, "net.digits", text)
    add(project, "net.other", text)
    with pytest.raises(UsageError, match=count) as caught:
        resolve("net")
    assert "net.digits, net.other" in caught.value.hint


def test_release_round_trip_is_deterministic(project: Path) -> None:
    add(project, "net.digits")
    assert load_release("net") is None
    path = write_release(RELEASE)
    first = path.read_bytes()
    loaded = load_release("net")
    assert loaded is not None
    assert set(loaded.files) == set(RELEASE.files)
    assert (loaded.metrics, loaded.provenance) == (RELEASE.metrics, RELEASE.provenance)
    assert (loaded.hub_repo, loaded.hub_commit) == (RELEASE.hub_repo, RELEASE.hub_commit)
    write_release(loaded)
    assert path.read_bytes() == first
    assert [item.name for item in path.parent.iterdir()] == ["net.digits.json"], "no temporary file is left"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "not a release of schema 1"),
        ({"extra": 1}, "not a release of schema 1"),
        ({"name": "other"}, "it names 'other'"),
        ({"hub": {"repo": "someone/net", "commit": "main"}}, "not 40 hex digits"),
        ({"files": [{"path": "../x", "size": 1, "sha256": "a" * 64}]}, "leaves the checkpoint folder"),
        ({"files": [{"path": "/etc/x", "size": 1, "sha256": "a" * 64}]}, "leaves the checkpoint folder"),
        ({"files": [{"path": "x", "size": 1, "sha256": "A" * 64}]}, "size or sha256 of 'x'"),
        ({"files": [{"path": "x", "size": -1, "sha256": "a" * 64}]}, "size or sha256 of 'x'"),
        ({"files": [{"path": "x", "sha256": "a" * 64}]}, "damaged"),
    ],
)
def test_damaged_release_is_refused(project: Path, change: dict[str, object], message: str) -> None:
    add(project, "net.digits")
    document = json.loads(write_release(RELEASE).read_text())
    release_path("net.digits").write_text(json.dumps(document | change))
    with pytest.raises(IntegrityError, match=message):
        load_release("net")


def test_release_that_is_not_json(project: Path) -> None:
    add(project, "net.digits")
    release_path("net.digits").write_text("{")
    with pytest.raises(IntegrityError, match=r"net\.digits\.json"):
        load_release("net")
