"""``bench`` about time, by exit code and output, on a network of two units."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from timed import LABELS, ROWS, split

from tdsnn.cli.main import main
from tdsnn.temporal.entropy import Entropy

MODEL = "timed:two_units"


@pytest.fixture
def data(tmp_path: Path, cache: Path) -> str:
    images = split(ROWS, LABELS).images
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", np.array(LABELS))
    return f"{tmp_path / 'images.npy'},{tmp_path / 'labels.npy'}"


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["bench", *arguments])
    code = caught.value.code
    return code if isinstance(code, int) else 0


def test_metrics_have_tables_and_figures(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked = ("--metric", "entropy:steps=6", "--early-exit", "--n", "5", "--out", str(out))
    assert run(MODEL, "--data", data, *asked) == 0
    shown = capsys.readouterr().out
    assert "entropy,T=6@units" in shown
    assert "steps at margin 0.5" in shown
    assert "pgd" not in shown, "attacks are made only if they are named"
    assert (out / "timed-two_units-entropy-steps=6-curves.svg").is_file()
    assert run(MODEL, "--data", data, *asked, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["metric"] for one in document["measurements"]] == ["entropy", "early_exit"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--metric", "entropi"), "Did you mean entropy"),
        (("--metric", "entropy:steps=0"), "from 1 to 999"),
        (("--metric", "anytime:steps=99999"), "from 1 to 999"),
        (("--metric", "entropy:layers=unit"), "no layer called 'unit'"),
        (("--metric", "entropy", "--suite", "time-v1"), "says itself"),
        (("--metric", "entropy", "--eps", "8"), "those of attacks"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    arguments: tuple[str, ...], sentence: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(MODEL, "--data", data, "--n", "5", *arguments) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_a_metric_without_a_number_is_exit_code_5(
    data: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tdsnn.errors import GateError

    def refuse(metric: Entropy, subject: object) -> None:
        raise GateError("Nothing fires.")

    monkeypatch.setattr(Entropy, "compute", refuse)
    assert run(MODEL, "--data", data, "--n", "5", "--metric", "entropy") == 5
    printed = capsys.readouterr()
    assert f"1 of 2 cells have no number; the first, entropy of {MODEL}: Nothing fires." in printed.err
    assert "REFUSED" in printed.out
