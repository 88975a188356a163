"""Results become official: their documents go where the cards of their models look."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from card_zoo import DATASET, TOPO, TWIN, bench, build_pair, card, survey

from tdsnn import paths
from tdsnn.cli import report as command
from tdsnn.errors import IntegrityError, UsageError
from tdsnn.report.official import make_official


@pytest.fixture
def pair(project: Path) -> Path:
    return build_pair(project)


@pytest.fixture
def measured(pair: Path, tmp_path: Path) -> Path:
    """A folder as ``bench --out`` leaves it."""
    bench(pair, tmp_path)
    shutil.rmtree(pair / "benchmarks")
    return tmp_path / "one"


def test_a_benchmark_reaches_the_cards_of_both(measured: Path, pair: Path) -> None:
    assert "There is no benchmark" in card(TWIN).text
    copy, models = make_official(measured, name="ours")
    assert copy == pair / "benchmarks" / "results" / "bench" / "ours.json"
    assert models == (TOPO, TWIN)
    assert copy.read_bytes() == (measured / "result.json").read_bytes()
    for name in models:
        assert "First 40 test images" in card(name).text
    with pytest.raises(UsageError, match="exists") as refused:
        make_official(measured, name="ours")
    assert "for --name" in refused.value.hint
    make_official(measured, name="ours", force=True)


def test_results_of_a_lab_stay_in_its_zoo_folder(
    measured: Path,
    pair: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lab = Path(shutil.copytree(pair / "zoo", tmp_path / "lab"))
    monkeypatch.setenv("TDSNN_ZOO", str(lab))
    monkeypatch.setattr("tdsnn.data._base.DATASETS", _Toys())
    before = sorted(pair.rglob("*"))
    command.official_command(measured, name="ours")
    written = capsys.readouterr().out.split()
    assert written[0] == str(lab / "results" / "bench" / "ours.json")
    assert str(lab / "releases" / f"{TOPO}.json") in written
    assert sorted(pair.rglob("*")) == before
    assert "First 40 test images" in card(TOPO).text


class _Toys:
    def load(self, name: str) -> object:
        return type("Toys", (), {"about": DATASET})


def test_a_survey(pair: Path, tmp_path: Path) -> None:
    weights = {TOPO: "a" * 64, f"{TWIN} (twin)": "b" * 64}
    (tmp_path / "survey.json").write_text(json.dumps(survey(weights=weights)))
    copy, models = make_official(tmp_path, name="maps")
    assert copy == paths.bundled("benchmarks", "results", "topo", "maps.json")
    assert models == (TOPO, TWIN)
    assert "There is no survey" not in card().text
    (tmp_path / "survey.json").write_text(json.dumps(survey()))
    with pytest.raises(UsageError, match="which has other weights now"):
        make_official(tmp_path, name="unsealed")


def test_what_no_card_would_show_is_refused(measured: Path, pair: Path) -> None:
    path = measured / "result.json"
    document = json.loads(path.read_text())
    foreign = document | {"settings": document["settings"] | {"dataset": "others"}}
    single = document | {"models": [one for one in document["models"] if one["name"] == TOPO]}
    for altered in (foreign, single):
        path.write_text(json.dumps(altered))
        with pytest.raises(UsageError, match="No card would show"):
            make_official(measured, name="ours")
    assert not (pair / "benchmarks").exists()


def test_a_model_beside_a_twin_of_the_project_changes_no_card_of_the_project(
    measured: Path, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = tmp_path / "lab"
    for kind, ending in (("models", "toml"), ("releases", "json")):
        (lab / kind).mkdir(parents=True)
        shutil.move(pair / "zoo" / kind / f"{TOPO}.{ending}", lab / kind)
    monkeypatch.setenv("TDSNN_ZOO", str(lab))
    monkeypatch.setattr("tdsnn.paths.is_checkout", lambda: False)
    copy, models = make_official(measured, name="ours")
    assert (copy.parents[2], models) == (lab, (TOPO,))


def test_results_of_an_installed_package_are_left_alone(
    measured: Path, pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tdsnn.paths.is_checkout", lambda: False)
    with pytest.raises(UsageError, match="belongs to the installed package"):
        make_official(measured, name="ours")
    assert not (pair / "benchmarks").exists()


def test_a_folder_with_both_documents_needs_one_named(measured: Path, pair: Path) -> None:
    weights = {TOPO: "a" * 64, f"{TWIN} (twin)": "b" * 64}
    (measured / "survey.json").write_text(json.dumps(survey(weights=weights)))
    with pytest.raises(UsageError, match=r"both result\.json and survey\.json"):
        make_official(measured, name="ours")
    copy, _ = make_official(measured / "survey.json", name="ours")
    assert copy.parent.name == "topo"


@pytest.mark.parametrize("name", ["", "../x", "a/b", "..", ".hidden", "x" * 300])
def test_names_that_lead_elsewhere(measured: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a document"):
        make_official(measured, name=name)


def test_what_is_no_result_of_released_weights(measured: Path, pair: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"neither result\.json nor survey\.json"):
        make_official(tmp_path / "empty", name="x")
    bench(pair, tmp_path, stem="old", ours="c" * 64)
    with pytest.raises(UsageError, match=f"about '{TOPO}', which has other weights now"):
        make_official(tmp_path / "old", name="x")
    (pair / "zoo" / "releases" / f"{TWIN}.json").unlink()
    with pytest.raises(UsageError, match=f"about '{TWIN}', which was not released"):
        make_official(measured, name="x")
    (measured / "result.json").write_text('{"schema": 1}')
    with pytest.raises(IntegrityError, match="cannot be read"):
        make_official(measured, name="x")
