"""``compare`` by exit code and output, on stored verdicts and on networks that have none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import run
from scipy.stats import ttest_rel
from seed_zoo import DIGEST, TOPO, TWIN, WRONG, N, build, release, write_manifest
from tiny import MANIFEST, NAME, Tiny, install
from tiny import release as pin

from tdsnn import verdicts, zoo
from tdsnn.manifest import release_path
from tdsnn.topography.layouts import SheetSpec
from tdsnn.topography.sheets import CorticalSheet


@pytest.fixture
def toys(project: Path, cache: Path) -> Path:
    return build(project)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run("compare", *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_table(toys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare", "topo") == 0
    printed = capsys.readouterr()
    accuracies = [[100 * (N - wrong) / N for wrong in WRONG[entry]] for entry in (TOPO, TWIN)]
    reference = ttest_rel(*accuracies)
    low, high = reference.confidence_interval()
    mean = sum(accuracies[0]) / 3 - sum(accuracies[1]) / 3
    for text in (
        f"{TOPO} and {TWIN} on toys, n = {N}",
        "only topo",
        "mean of 3",
        f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]",
        f"{reference.pvalue:.3f}",
        "of each row alone",
        "P(r, d), mean over layers",
        "+0.200",
        f"the 95 % interval of the difference reaches from {low:+.2f} to {high:+.2f} points.",
    ):
        assert text in printed.out, text
    assert printed.err == ""


def test_json(toys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = answer(capsys, "topo.toys-s*", "plain")
    assert (document["schema"], document["a"], document["b"]) == (1, TOPO, TWIN)
    assert (document["data_digest"], document["n"], document["equivalence_margin_points"]) == (DIGEST, N, 1.0)
    assert [row["seed"] for row in document["seeds"]] == [0, 1, 2]
    row = document["seeds"][1]
    assert (row["a"]["name"], row["b"]["name"]) == (f"{TOPO}-s1", f"{TWIN}-s1")
    assert row["a"]["weights_sha256"] == f"{TOPO}-s1".encode().hex().zfill(64)
    assert row["difference"]["value"] == pytest.approx(100 * (row["only_a"] - row["only_b"]) / N)
    assert row["difference"]["unit"] == "percentage points"
    assert document["accuracy"]["difference"]["n"] == 3
    assert document["alignment"]["p_value"] < 0.05
    assert document["conclusion"]["verdict"] in ("undecided", "worse")


def test_one_seed_says_so(toys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = answer(capsys, "topo.toys", "plain.toys")
    assert (document["accuracy"], document["alignment"]) == (None, None)
    assert document["conclusion"]["verdict"] == "one seed"
    assert run("compare", "topo.toys") == 0
    shown = capsys.readouterr().out
    assert "One seed says nothing about other trainings" in shown
    assert "mean of" not in shown
    assert "Student" not in shown


def test_what_is_left_out_is_named(toys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release_path(f"{TWIN}-s1").unlink()
    assert run("compare", "topo", "plain", "--json") == 0
    printed = capsys.readouterr()
    assert f"lacks that seed: {TOPO}-s1" in printed.err
    assert json.loads(printed.out)["left_out"] == [f"{TOPO}-s1"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("tapo",), 2, "no model called"),
        (("*",), 2, "several entries"),
        (("topo", "topo.toys"), 2, "with itself"),
        (("topo.toys-s1", "plain.toys"), 2, "No seed of"),
        (("topo", "other.digits"), 2, "share no image"),
        (("topo.toys-s5",), 4, "Nothing of 'topo.toys-s5' was released"),
        (("topo", "bare"), 4, "Neither the verdicts of 'bare.toys'"),
    ],
)
def test_what_cannot_be_compared(
    toys: Path, arguments: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_manifest(toys, "other.digits", twin="other.digits", dataset="digits")
    release("other.digits")
    write_manifest(toys, "bare.toys", twin=TOPO, default="true")
    release("bare.toys")
    assert run("compare", *arguments) == code
    printed = capsys.readouterr()
    sentence, hint = [line for line in printed.err.splitlines() if not line.startswith("Left out")]
    assert message in sentence
    assert "tdsnn-zoo" in hint
    assert printed.out == ""


def test_a_suite_without_attacks_compares_nothing(
    toys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "time.toml"
    suite.write_text('summary = "Time."\n[[metrics]]\nmetric = "latency"\n')
    assert run("compare", "topo", "--suite", str(suite)) == 2
    printed = capsys.readouterr()
    assert "makes no attack" in printed.err
    assert "tdsnn-zoo bench topo.toys --suite" in printed.err
    assert printed.out == ""


def test_official_results_are_not_measured_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Measured(Exception):
        pass

    def measure(*_: object, **__: object) -> None:
        raise Measured

    monkeypatch.setattr("tdsnn.benchmark.comparing.prepare", measure)
    pair = ("tsresnet18.fashion_mnist", "sresnet18.fashion_mnist")
    asked = ("--suite", "standard-v1")
    found, turned = (answer(capsys, *names, *asked) for names in (pair, pair[::-1]))
    assert found["official"] == [0]
    assert found["masked"] == [pair[0]]
    for one, other in zip(found["rows"], turned["rows"], strict=True):
        assert (one["a"], one["b"], one["p"]) == (other["b"], other["a"], other["p"])
        ours, theirs = one["difference"], other["difference"]
        assert ours["value"] == pytest.approx(one["a"]["value"] - one["b"]["value"])
        assert [ours["low"], ours["value"], ours["high"]] == [
            -theirs[bound] for bound in ("high", "value", "low")
        ]
    assert run("compare", *pair, *asked) == 0
    assert "Official results of seed 0; --fresh measures anew." in capsys.readouterr().out
    for others in (("--n", "999"), ("--fresh",)):
        with pytest.raises(Measured):
            run("compare", *pair, *asked, *others)
    assert run("compare", *pair, "--fresh") == 2


def test_damaged_verdicts(toys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = toys / "zoo" / "verdicts" / f"{TWIN}-s2.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert run("compare", "topo") == 3
    printed = capsys.readouterr()
    assert str(path) in printed.err
    assert printed.out == ""


def test_networks_without_verdicts_are_measured(
    project: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(project, monkeypatch)
    monkeypatch.setattr(Tiny, "compile_operators", lambda model: False)
    other = "other.digits"
    for name in (NAME, other):
        (project / "zoo" / "models" / f"{name}.toml").write_text(MANIFEST.replace("= 3", "= 10"))
        model = Tiny(hidden=10)
        model.sheets = {
            "conv": CorticalSheet.retinotopic(SheetSpec("conv", 2.0), (10, 2, 2), first_height=2, seed=0)
        }
        folder = project / "zoo" / "checkpoints" / name
        zoo.save(model, folder, name=name, dataset="digits")
        pin(folder, name=name)
    assert run("compare", NAME, other, "--json") == 0
    printed = capsys.readouterr()
    assert f"No stored verdicts of {NAME}, {other}" in printed.err
    document = json.loads(printed.out)
    (row,) = document["seeds"]
    assert document["n"] == row["a"]["accuracy"]["n"] > 100
    assert not verdicts.path_of(NAME).exists(), "only publishing writes them"
    assert len(list((cache / "bench").rglob("cells/*.safetensors"))) == 2
    assert answer(capsys, NAME, other) == document


def test_stored_verdicts_are_compared_without_torch(toys: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom tdsnn import paths\n"
        f"paths.bundled = Path({str(toys)!r}).joinpath\n"
        "from tdsnn.cli.main import main\n"
        "try: main(['compare', 'topo'])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
