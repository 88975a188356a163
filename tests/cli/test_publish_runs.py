"""From a finished run to a zoo folder and a Hub, in the project's zoo and in one's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from command import run
from hub_server import HubServer
from msgspec.structs import replace
from tiny import MANIFEST, NAME, measured, release_entry, tiny

from tdsnn import store, verdicts, zoo
from tdsnn.errors import TdsnnError
from tdsnn.files import sha256_of
from tdsnn.manifest import load_release
from tdsnn.publish import release as releases
from tdsnn.schema import WEIGHTS_FILE, Release
from tdsnn.training.state import OUTCOME
from tdsnn.verdicts import CleanVerdicts

REPO = "alice/tiny"
RIGHT = np.array([True, False, True])


@pytest.fixture
def entry(
    project: Path,
    cache_with_data: Path,
    hub_server: HubServer,
    no_waiting: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> Release:
    """A released entry, and somebody who may publish."""
    monkeypatch.setenv("HF_TOKEN", "hf_write_secret")
    monkeypatch.setattr(releases, "check_settings", lambda *parts: None)
    _measure(monkeypatch, RIGHT)
    return release_entry(project, monkeypatch)


def _measure(monkeypatch: pytest.MonkeyPatch, right: np.ndarray) -> None:
    """A run is measured at once, and these are its verdicts."""
    monkeypatch.setattr(
        releases,
        "_measure",
        lambda checkpoint, *parts, results: (
            measured(str(checkpoint.resolve())),
            CleanVerdicts(
                weights_sha256=sha256_of(checkpoint / WEIGHTS_FILE), data_digest="d" * 64, scores=right
            ),
        ),
    )


def finished_run(folder: Path, name: str = NAME) -> Path:
    """A run whose weights are other ones than the entry has."""
    model = tiny()
    model.conv.weight.data += 1
    zoo.save(model, folder / releases.CHECKPOINT, name=name, dataset="digits")
    outcome = {"name": name, "environment": {"python": "3.11"}, "data_digests": {}}
    (folder / OUTCOME).write_text(json.dumps(outcome))
    (folder / releases.LOG).write_text("")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_to_the_zoo_and_to_a_hub(
    entry: Release, hub_server: HubServer, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished_run(tmp_path / "run")
    figures = project / "zoo" / "checkpoints" / NAME / "figures"
    figures.mkdir()
    (figures / "old.png").write_bytes(b"drawn from the weights before")
    assert run("publish", str(folder), "--repo", REPO, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["commit"] == hub_server.head(REPO)
    written = load_release(NAME)
    assert written is not None
    assert written.hub_commit == document["commit"]
    stored = verdicts.read(written)
    assert stored is not None, "they are about the weights that were published"
    np.testing.assert_array_equal(stored.scores, RIGHT)
    weights = (folder / releases.CHECKPOINT / "model.safetensors").read_bytes()
    assert hub_server.files(REPO)["model.safetensors"] == weights
    assert not list(figures.iterdir())
    (figures / "new.png").write_bytes(b"drawn from these")
    assert run("report", "cards", NAME) == 0
    assert run("publish", str(folder), "--repo", REPO) == 0
    assert hub_server.files(REPO)["figures/new.png"] == b"drawn from these"
    (figures / "new.png").unlink()
    assert run("report", "cards", NAME) == 0
    capsys.readouterr()
    assert run("publish", NAME, "--repo", REPO) == 0
    assert "removed    figures/new.png" in capsys.readouterr().out
    assert "figures/new.png" not in hub_server.files(REPO)


def test_a_run_is_not_measured_for_a_repository_that_is_public_where_a_private_one_was_asked_for(
    entry: Release, hub_server: HubServer, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, before = finished_run(tmp_path / "run"), contents(project)
    hub_server.add(REPO, {"a.txt": b"a"})
    assert run("publish", str(folder), "--repo", REPO, "--private") == 2
    assert "exists and is public" in capsys.readouterr().err
    assert contents(project) == before


def test_a_run_of_ones_own_zoo_leaves_the_project_alone(
    entry: Release, hub_server: HubServer, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    (mine / "models").mkdir(parents=True)
    (mine / "models" / "ours.digits.toml").write_text(MANIFEST)
    monkeypatch.setenv("TDSNN_ZOO", str(mine))
    before = contents(project)
    assert run("publish", str(finished_run(tmp_path / "run", "ours.digits"))) == 0
    assert store.locate("ours").source == "folder"
    assert (mine / "checkpoints" / "ours.digits" / "README.md").is_file()
    assert (mine / "verdicts" / "ours.digits.safetensors").is_file()
    assert run("publish", "--all", "--repo", "alice") == 0
    assert ("model", "alice/ours.digits") in hub_server.repos
    assert ("model", f"alice/{NAME}") not in hub_server.repos, "not the lab's"
    assert run("info", "ours") == 0
    assert contents(project) == before


def test_an_installed_zoo_is_not_published_from(
    entry: Release, hub_server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tdsnn.paths.is_checkout", lambda: False)
    for arguments in ((str(finished_run(tmp_path / "run")),), (NAME, "--repo", REPO)):
        assert run("publish", *arguments) == 2
    assert run("report", "cards") == 2
    assert run("publish", NAME, "--repo", REPO, "--dry-run") == 0
    assert load_release(NAME) == entry
    assert not hub_server.repos


def test_what_is_too_large_for_the_project_is_published_from_the_cache(
    entry: Release,
    hub_server: HubServer,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Beside an older checkpoint that was not."""
    monkeypatch.setattr(store, "LARGEST_EMBEDDED_BYTES", 100)
    assert run("publish", str(finished_run(tmp_path / "run"))) == 0
    assert f"To publish it: tdsnn-zoo publish {NAME} --repo" in " ".join(capsys.readouterr().err.split())
    assert store.locate(NAME).source == "cache"
    assert run("publish", NAME, "--repo", REPO) == 0
    assert store.available(NAME) in ("cache", "hub")
    assert not (project / "zoo" / "checkpoints" / NAME).exists()
    assert b"# tiny" in hub_server.files(REPO)["README.md"]
    assert run("download", NAME) == 0
    assert store.available(NAME) == "cache"


def test_servers_without_xet(
    entry: Release, hub_server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As everybody's client is: with Xet on, which only huggingface.co speaks."""
    code = (
        "from tdsnn import hub; import os\n"
        f"hub.publish(hub.Reference(repo={REPO!r}), {{'a.safetensors': os.urandom(1000)}}, message='x')"
    )
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_DISABLE_XET"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Xet" not in done.stderr
    assert len(hub_server.files(REPO)["a.safetensors"]) == 1000


def test_a_release_without_accuracy_is_not_published(entry: Release, hub_server: HubServer) -> None:
    releases.manifests.write_release(replace(entry, metrics={}))
    assert run("publish", NAME, "--repo", REPO) == 5


def test_the_checkpoint_of_a_run_stands_for_the_run_and_the_place_is_told(
    entry: Release, tmp_path: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("publish", str(finished_run(tmp_path / "run") / releases.CHECKPOINT)) == 0
    told = capsys.readouterr().err
    assert f"Written: {project / 'zoo' / 'checkpoints' / NAME} and " in told


@pytest.fixture
def lab(entry: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo folder with one entry that was not released."""
    mine = tmp_path / "mine"
    (mine / "models").mkdir(parents=True)
    text = MANIFEST.replace("default = true", "").replace(f'twin = "{NAME}"', 'twin = "ours.digits"')
    (mine / "models" / "ours.digits.toml").write_text(text)
    monkeypatch.setenv("TDSNN_ZOO", str(mine))
    return mine


def test_what_learned_nothing_is_released_by_force_only(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished_run(tmp_path / "run", "ours.digits")
    _measure(monkeypatch, np.arange(40) < 4)
    before = contents(lab)
    assert run("publish", str(folder)) == 5
    told = capsys.readouterr().err
    assert "no better than chance: 4 of 40 test images" in " ".join(told.split())
    assert "--force" in told
    assert contents(lab) == before
    assert run("publish", str(folder), "--force") == 0
    assert load_release("ours.digits") is not None


def test_a_twin_that_is_no_entry_is_named_before_anything_is_measured(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lab / "models" / "ours.digits.toml"
    path.write_text(path.read_text().replace('twin = "ours.digits"', 'twin = "nobody.digits"'))
    monkeypatch.setattr(releases, "_measure", None)
    assert run("publish", str(finished_run(tmp_path / "run", "ours.digits"))) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "The twin of 'ours.digits' is to be 'nobody.digits'" in told
    assert f"Write {lab / 'models' / 'nobody.digits.toml'}" in told


@pytest.mark.parametrize("failing", ["tdsnn.verdicts.write", "tdsnn.report.cards.write"])
def test_a_release_that_fails_leaves_nothing(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    before = contents(lab)

    def fail(*parts: object) -> None:
        raise TdsnnError("The disk is full.", hint="Free some space.")

    monkeypatch.setattr(failing, fail)
    assert run("publish", str(finished_run(tmp_path / "run", "ours.digits"))) == 1
    assert contents(lab) == before


@pytest.mark.parametrize("released", [True, False])
def test_wherever_a_release_is_stopped_the_zoo_is_as_it_was(
    lab: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, released: bool
) -> None:
    """An entry of the project and, never released before, one of a lab, which has a twin of its own."""
    folder = finished_run(tmp_path / "run", NAME if released else "ours.digits")
    if not released:
        text = (lab / "models" / "ours.digits.toml").read_text()
        (lab / "models" / "ours.digits.toml").write_text(text.replace('"ours.digits"', '"other.digits"'))
        (lab / "models" / "other.digits.toml").write_text(text)
        assert run("publish", str(finished_run(tmp_path / "other", "other.digits"))) == 0
    before, real = contents(project) | contents(lab), Path.replace
    for last in count(1):
        done = 0

        def replace_until(path: Path, target: Path, last: int = last) -> Path:
            nonlocal done
            done += 1
            if done == last:
                raise KeyboardInterrupt
            return real(path, target)

        monkeypatch.setattr(Path, "replace", replace_until)
        code = run("publish", str(folder))
        monkeypatch.setattr(Path, "replace", real)
        if code == 0:
            break
        assert code == 130
        assert contents(project) | contents(lab) == before, f"stopped at file {last}"
        assert (lab / "checkpoints" / "ours.digits").exists() is False
    assert last > 5
    assert contents(project) | contents(lab) != before
