"""What model cards say, from made-up manifests, releases and result documents."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from card_zoo import LAYER, TOPO, TWIN, bench, build_pair, card, document, row, rows, survey, write_manifest
from huggingface_hub import EvalResult, ModelCard, parse_eval_result_entries
from markdown_it import MarkdownIt
from msgspec.structs import replace

from tdsnn import manifest as manifests
from tdsnn.errors import IntegrityError, UsageError
from tdsnn.maps.survey import SHUFFLED


@pytest.fixture
def pair(project: Path) -> Path:
    return build_pair(project)


def test_every_figure_stands_beside_the_twins_with_its_interval(pair: Path) -> None:
    for name in (TOPO, TWIN):
        text = card(name).text
        assert row(text, "", f"`{TOPO}`") == [f"`{TWIN}` (twin)", "images"]
        assert row(text, "accuracy without attack, %") == [
            "91.25 [90.70, 91.75]",
            "92.50 [91.95, 93.00]",
            "10,000",
        ]
        assert row(text, "parameters") == ["1,234,567", "1,234,567", "-"]
        assert row(text, f"`{LAYER}`") == ["0.309 [0.289, 0.329]", "0.000 [-0.020, 0.020]"]
        assert "on 1,000 test images" in text


def test_the_recipe_and_both_logs_are_shown(pair: Path) -> None:
    text = card().text
    assert row(text, "`recipe.seed`") == ["7", "7"]
    assert row(text, "`topography.alpha`") == ["0.03", "0"]
    assert row(text, "`model.timesteps`") == ["4"]
    assert row(text, "classification loss") == ["0.9000", "0.6500", "0.9000", "0.6500"]
    assert row(text, "spatial loss of rates, L_L") == ["3.250", "3.250", "-", "-"]
    assert "12.5 %" in row(text, "pairs of units left out because one was silent")
    assert "seconds_left" not in text
    assert "factor_h" not in text, "a setting of another loss"


def test_without_documents_the_card_says_so(pair: Path) -> None:
    text = card().text
    assert "There is no benchmark of these weights yet" in text
    assert "There is no survey of this model's maps yet" in text
    assert "Robustness of these weights was not measured" in text


def test_a_benchmark_is_shown_with_paired_differences_and_masking_marks(pair: Path, tmp_path: Path) -> None:
    result = bench(pair, tmp_path)
    assert result["models"][0]["masking_signs"]
    assert not result["models"][1]["masking_signs"]
    text = card().text
    assert "There is no benchmark" not in text
    found = {(cell["model"], cell["attack"], cell["eps_255"]): cell["accuracy"] for cell in result["cells"]}
    for compared in result["comparisons"]:
        attack, eps = compared["attack"], compared["eps_255"]
        kind = "linf, eps" if attack == "pgd" else "sigma"
        place = "-" if attack == "clean" else f"{kind} {eps:g}/255"
        ours, theirs, difference, p = row(text, attack, place)
        mark = " †" if attack == "pgd" else ""
        assert ours == _cell(found[TOPO, attack, eps]) + mark
        assert theirs == _cell(found[TWIN, attack, eps])
        assert difference == _cell(compared["difference"], "+") + mark
        shown = f"{compared['p_mcnemar']:.3f}" if compared["p_mcnemar"] >= 0.001 else r"\<0.001"
        assert p == shown + r"\*" * (compared["p_holm"] < 0.05)
    assert f"† The gradients of `{TOPO}` may be masked" in text
    assert f"† The gradients of `{TWIN}` may be masked" not in text
    assert "First 40 test images" in text
    assert "adjustment over 5 comparisons" in text
    assert "only an upper bound on robustness" in text
    assert "accuracy under attack is no evidence of robustness" in text


def _cell(figure: dict[str, Any], sign: str = "") -> str:
    value, low, high = (f"{figure[key]:{sign}z.1f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


@pytest.mark.parametrize("older", ["ours", "theirs"])
def test_a_benchmark_of_older_weights_is_left_out(pair: Path, tmp_path: Path, older: str) -> None:
    bench(pair, tmp_path, **{older: "c" * 64})
    for name in (TOPO, TWIN):
        text = card(name).text
        assert "There is no benchmark of these weights yet" in text
        assert "pgd, linf" not in text


def test_a_refused_cell_is_no_number(pair: Path, tmp_path: Path) -> None:
    result = bench(pair, tmp_path)
    broken = next(cell for cell in result["cells"] if (cell["model"], cell["attack"]) == (TOPO, "pgd"))
    broken |= {"accuracy": None, "survivors": None, "error": "the attack left <the> ball"}
    place = ("pgd", broken["eps_255"])
    result["comparisons"] = [c for c in result["comparisons"] if (c["attack"], c["eps_255"]) != place]
    document(pair / "benchmarks" / "results" / "bench" / "one.json", result)
    shown = card()
    ours, _, difference, p = row(shown.text, "pgd", f"linf, eps {broken['eps_255']:g}/255")
    assert (ours, difference, p) == ("refused", "-", "-")
    assert r"the attack left \<the\> ball" in shown.text
    assert f"pgd-linf-{broken['eps_255']:g}" not in shown.evaluation


def test_two_benchmarks_are_two_tables(pair: Path, tmp_path: Path) -> None:
    bench(pair, tmp_path)
    bench(pair, tmp_path, stem="two")
    assert len([cells for cells in rows(card().text) if cells[0] == "clean"]) == 2


def test_a_survey_is_shown_for_both_beside_the_control(pair: Path) -> None:
    document(pair / "benchmarks" / "results" / "topo" / "one.json", survey())
    for name in (TOPO, TWIN):
        text = card(name).text
        below = text[text.index("### Maps, seed 3") :]
        assert row(below, f"`{LAYER}`", "0.41 [0.31, 0.51]") == [
            "0.12 [0.02, 0.22]",
            "0.03 [-0.07, 0.13]",
            "500",
        ]
        assert row(below, f"`{LAYER}`", "0.18 [0.08, 0.28]") == ["refused", "0.00 [-0.10, 0.10]", "500"]
        assert r"Refused: All respond \| alike." in below
        assert f"measured on the sheets of `{TOPO}`" in below
        assert "Not surveyed: smoothness of the maps of category selectivity" in below
        assert "folder" not in below, "why stimuli are missing is about one machine"


@pytest.mark.parametrize(
    "changes",
    [
        {"subjects": [TOPO, SHUFFLED]},
        {"subjects": ["other.toys", f"{TWIN} (twin)", SHUFFLED]},
        {"weights": {TOPO: "c" * 64, f"{TWIN} (twin)": "b" * 64}},
        {"weights": {TOPO: "a" * 64, f"{TWIN} (twin)": "c" * 64}},
    ],
    ids=["no twin", "another model", "older weights", "older weights of the twin"],
)
def test_a_survey_of_something_else_is_left_out(pair: Path, changes: dict[str, Any]) -> None:
    document(pair / "benchmarks" / "results" / "topo" / "one.json", survey(**changes))
    assert "There is no survey" in card().text


def test_a_survey_that_names_these_weights_is_shown(pair: Path) -> None:
    weights = {TOPO: "a" * 64, f"{TWIN} (twin)": "b" * 64}
    document(pair / "benchmarks" / "results" / "topo" / "one.json", survey(weights=weights))
    assert "There is no survey" not in card().text


@pytest.mark.parametrize("kind", ["bench", "topo"])
@pytest.mark.parametrize("content", [{"schema": 99}, {"schema": 1}, [], "text"])
def test_a_damaged_document_is_named(pair: Path, kind: str, content: Any) -> None:
    document(pair / "benchmarks" / "results" / kind / "one.json", content)
    with pytest.raises(IntegrityError, match=r"one\.json"):
        card()


def test_a_topographic_model_is_not_shown_without_its_twin(pair: Path, tmp_path: Path) -> None:
    bench(pair, tmp_path)
    manifests.release_path(TWIN).unlink()
    shown = card()
    assert "has not been released yet" in shown.text
    for figure in ("91.25", "0.309", "0.6500", "pgd, linf"):
        assert figure not in shown.text
    assert ModelCard(shown.text).data.eval_results is None
    assert shown.evaluation == ""


def test_a_lone_twin_is_shown(pair: Path) -> None:
    manifests.release_path(TOPO).unlink()
    text = card(TWIN).text
    assert row(text, "accuracy without attack, %") == ["92.50 [91.95, 93.00]", "10,000"]
    assert "(twin)" not in text


def test_metadata_reads_back(pair: Path, tmp_path: Path) -> None:
    result = bench(pair, tmp_path)
    shown = card()
    data = ModelCard(shown.text).data
    assert (data.library_name, data.license, data.pipeline_tag) == (
        "tdsnn-zoo",
        "apache-2.0",
        "image-classification",
    )
    assert data.datasets == ["owner/toys"]
    assert {"spiking-neural-network", "topographic", "neuroscience", "sresnet18", "stc"} <= set(data.tags)
    assert "topographic" not in ModelCard(card(TWIN).text).data.tags
    assert data.model_name == TOPO
    results: list[EvalResult] = data.eval_results
    cells = [c for c in result["cells"] if c["model"] == TOPO and c["attack"] != "clean"]
    assert [r.metric_value for r in results] == [91.25, *(cell["accuracy"]["value"] for cell in cells)]
    clean, weak, *_ = results
    assert (clean.dataset_type, clean.dataset_name, clean.metric_type) == ("owner/toys", "Toys", "accuracy")
    assert "90.70 to 91.75" in clean.metric_name
    assert f"{TWIN}: 92.50" in clean.metric_name
    assert weak.metric_name.startswith("Accuracy under pgd, linf, eps 64/255, %")
    assert "gradients may be masked" in weak.metric_name
    assert weak.metric_args["steps"] == 10

    entries = parse_eval_result_entries(yaml.safe_load(shown.evaluation))
    assert [entry.value for entry in entries] == [r.metric_value for r in results]
    assert entries[0].task_id == "clean"
    assert entries[1].task_id == "pgd-linf-64"
    assert {entry.dataset_id for entry in entries} == {"owner/toys"}
    assert entries[1].date == result["provenance"]["created"]
    assert f"{TWIN}:" in str(entries[1].notes)


def test_a_dataset_without_a_repository_has_no_evaluation(pair: Path) -> None:
    shown = card(repo=None)
    assert shown.evaluation == ""
    assert ModelCard(shown.text).data.datasets is None


@pytest.mark.parametrize("repo", ["not a repo", "a/b/c", "-/-"])
def test_metadata_that_the_client_refuses_is_an_error(pair: Path, repo: str) -> None:
    with pytest.raises(UsageError, match=TOPO):
        card(repo=repo)


HOSTILE = r"""---
license: other
---

# Not a heading <script>alert(1)</script> `not code` {{ 7 * 7 }} {% raw %}
- not a list | not | a | cell
1. not a list
===

    not code
```python
[not a link](http://example.org) ![nor a picture](x.png) *not emphasis* $x$ &amp; fashion_mnist _no_"""


def test_no_control_characters(pair: Path) -> None:
    write_manifest(pair, TOPO, twin=TWIN, alpha="0.03", summary="a\\u001b[2Jb", notes="c\u202ed")
    text = card().text
    assert "a\ufffd" in text
    assert "c\ufffdd" in text
    assert not {"\x1b", "\u202e"} & set(text)


def test_markup_in_a_manifest_is_only_text(pair: Path) -> None:
    summary = "A <b>toy</b> | of [one](x) *line*"
    calm = card().text
    write_manifest(pair, TOPO, twin=TWIN, alpha="0.03", summary=summary, notes=HOSTILE)
    text = card().text
    assert ModelCard(text).data.to_yaml() == ModelCard(calm).data.to_yaml()

    def structure(body: str) -> list[str]:
        tokens = [token.type for token in MarkdownIt("gfm-like", {"linkify": False}).parse(body)]
        return [kind for kind in tokens if "paragraph" not in kind and kind != "inline"]

    notes = ["heading_open", "heading_close"]
    assert len(structure(text)) == len(structure(calm)) + len(notes)
    html = MarkdownIt("gfm-like", {"linkify": False}).render(text[text.index("## Notes") :])
    plain = html[: html.index("Reproduce")]
    for tag in ("<script", "<ul", "<ol", "<code", "<a ", "<img", "<em", "<table", "<hr", "<pre"):
        assert tag not in plain
    for words in (
        "# Not a heading",
        "`not code`",
        "{{ 7 * 7 }}",
        "- not a list",
        "1. not",
        "```python",
        "===",
    ):
        assert words in plain
    assert "&lt;script&gt;" in plain
    assert "fashion_mnist" in text[text.index("## Notes") :]


def test_the_tables_are_tables(pair: Path, tmp_path: Path) -> None:
    bench(pair, tmp_path)
    document(pair / "benchmarks" / "results" / "topo" / "one.json", survey())
    text = card().text
    assert "\n\n\n" not in text
    assert not re.search(r"[ \t]\n", text)
    body = text.split("\n---\n", 1)[1]
    html = MarkdownIt("gfm-like", {"linkify": False}).render(body)
    assert html.count("<table>") == len(re.findall(r"^\| -", body, re.MULTILINE)) == 9
    # What a parser did not take for a table keeps its bars.
    assert "|" not in re.sub(r"<[^>]*>", "", html).replace("All respond | alike.", "")


def test_a_layer_without_an_interval_has_the_reason(pair: Path) -> None:
    release = manifests.load_release(TOPO)
    assert release is not None
    measured = {**release.metrics["P(r, d)"], "intervals": {}, "without_interval": {LAYER: "all | alike"}}
    manifests.write_release(replace(release, metrics={**release.metrics, "P(r, d)": measured}))
    text = card().text
    assert row(text, f"`{LAYER}`") == ["0.309", "0.000 [-0.020, 0.020]"]
    assert f"\n- `{LAYER}` has no interval: all \\| alike.\n" in text
