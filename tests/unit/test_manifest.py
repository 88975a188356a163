"""Manifests and releases: strict parsing, short names, deterministic files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from tdsnn.errors import IntegrityError, UsageError
from tdsnn.manifest import list_models, load_release, parse, release_path, resolve, write_release
from tdsnn.schema import FileRecord, Release

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
            "unknown key 'sumary'; did you mean 'summary'",
        ),
        ("lr = 0.1", "lrr = 0.1", "unknown key 'recipe.lrr'; did you mean 'lr'"),
        ('name = "digits"', 'nam = "digits"', "unknown key 'data.nam'; did you mean 'name'"),
        ('architecture = "net"', "", "lacks the key 'model.architecture'"),
        ('twin = "net.digits"', "", "lacks the key 'twin'"),
        ("lr = 0.1", 'lr = "fast"', "needs a number from 1e-08 to 100 for 'recipe.lr', not 'fast'"),
        ("lr = 0.1", "lr = -0.1", "from 1e-08 to 100 for 'recipe.lr', not -0.1"),
        ("lr = 0.1", "lr = nan", "for 'recipe.lr', not nan"),
        ("lr = 0.1", "epochs = 1.5", "needs a whole number from 1 to 100000 for 'recipe.epochs', not 1.5"),
        ("lr = 0.1", "epochs = 0", "needs a whole number from 1 to 100000 for 'recipe.epochs', not 0"),
        ("lr = 0.1", "epochs = true", "for 'recipe.epochs', not True"),
        (
            "lr = 0.1",
            'optimizer = "adam"',
            "needs 'adamw', 'muon' or 'sgd' for 'recipe.optimizer', not 'adam'; did",
        ),
        ('["crop", "flip"]', '["crop", 3]', "for 'recipe.augmentation.1.', not 3"),
        ("default = true", "default = 1", "needs true or false for 'default'"),
        ("alpha = 1", 'unit_mm = {"layer4.0" = "far"}', "for 'topography.unit_mm.layer4.0', not 'far'"),
        ("alpha = 1", "unit_mm = 7", "needs a table for 'topography.unit_mm'"),
        ("[topography]\nalpha = 1", "[[topography]]", r"needs a table for 'topography', not \[\{\}\]"),
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
        ({"schema": 2}, "needs 1 for 'schema', not 2"),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"name": "other"}, "names 'other'"),
        ({"hub": {"repo": "someone/net", "commit": "main"}}, "a commit of 40 hex digits for 'hub.commit'"),
        ({"hub": {"repo": "../net", "commit": "d" * 40}}, "'../net' cannot be the name of a repository"),
        (
            {"files": [{"path": "../x", "size": 1, "sha256": "a" * 64}]},
            "does not leave the checkpoint folder",
        ),
        ({"files": [{"path": "/etc/x", "size": 1, "sha256": "a" * 64}]}, "does not leave the checkpoint"),
        ({"files": [{"path": "x\n", "size": 1, "sha256": "a" * 64}]}, "does not leave the checkpoint"),
        ({"files": [{"path": "x" * 201, "size": 1, "sha256": "a" * 64}]}, "does not leave the checkpoint"),
        ({"files": [{"path": "x", "size": 1, "sha256": "A" * 64}]}, "for 'files.0..sha256'"),
        ({"files": [{"path": "x", "size": -1, "sha256": "a" * 64}]}, "for 'files.0..size', not -1"),
        ({"files": [{"path": "x", "sha256": "a" * 64}]}, "lacks the key 'files.0..size'"),
        (
            {"metrics": {"clean_accuracy": {"unit": "%", "value": "high"}}},
            "for 'metrics.clean_accuracy.value'",
        ),
        ({"metrics": {"clean_accuracy": {"value": 3}}}, "lacks the key 'metrics.clean_accuracy.unit'"),
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
