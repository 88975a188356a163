"""``bench`` by exit code and output, on two tiny spiking networks released in a zoo of their own."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import tdsnn
from tdsnn import zoo
from tdsnn.benchmark.masking import Sign
from tdsnn.cli.main import main
from tdsnn.data._base import Split
from tdsnn.files import sha256_of
from tdsnn.manifest import write_release
from tdsnn.models.sresnet18 import sresnet18
from tdsnn.schema import FileRecord, Release

TOPO, TWIN = "tsresnet18.toy", "sresnet18.toy"
N = 24
MANIFEST = """
summary = "A test model."
default = true
twin = "{twin}"
[model]
architecture = "sresnet18"
[model.arguments]
width = 4
timesteps = 2
in_channels = 1
mean = [0.5]
std = [0.3]
[data]
name = "toy"
[topography]
alpha = {alpha}
"""


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["bench", *arguments])
    code = caught.value.code
    return code if isinstance(code, int) else 0


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def _pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (N, 1, 8, 8), dtype=np.uint8)


def _release(root: Path, name: str, *, twin: str, alpha: float, seed: int) -> torch.Tensor:
    """Put a network with settled batch statistics into the zoo; returns its predictions."""
    (root / "models" / f"{name}.toml").write_text(MANIFEST.format(twin=twin, alpha=alpha))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = sresnet18(width=4, timesteps=2, in_channels=1, mean=(0.5,), std=(0.3,))
    x = torch.from_numpy(_pixels()).float() / 255
    with torch.no_grad():
        for _ in range(20):
            model.train()(x)
        predictions = model.eval()(x).argmax(1)
    folder = root / "checkpoints" / name
    zoo.save(model, folder, name=name, dataset="toy")
    records = tuple(
        FileRecord(path=path.name, size=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(folder.iterdir())
    )
    write_release(Release(name=name, files=records, metrics={}, provenance={}))
    return predictions


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A zoo with a topographic model and its twin, and labels that one or the other gives."""
    root = tmp_path_factory.mktemp("project")
    for part in ("models", "releases", "checkpoints"):
        (root / "zoo" / part).mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tdsnn.paths.bundled", root.joinpath)
        topo = _release(root / "zoo", TOPO, twin=TWIN, alpha=0.1, seed=0)
        twin = _release(root / "zoo", TWIN, twin=TOPO, alpha=0.0, seed=1)
    return root, torch.where(torch.arange(N) % 3 == 0, twin, topo).numpy()


@pytest.fixture(autouse=True)
def toy_zoo(released: tuple[Path, np.ndarray], cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only zoo and the only dataset that the command sees."""
    root, labels = released

    def load(name: str, split: str) -> Split:
        assert (name, split) == ("toy", "test")
        return Split(
            images=_pixels(),
            labels=labels,
            classes=tuple(str(index) for index in range(10)),
            digest="0" * 64,
            pinned=False,
            origin="toy",
        )

    monkeypatch.setattr("tdsnn.paths.bundled", root.joinpath)
    monkeypatch.setattr("tdsnn.data._base.load_split", load)
    return root / "zoo"


def test_without_models_the_topographic_one_stands_beside_its_twin(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--n", str(N), "--eps", "1", "--steps", "2") == 0
    printed = capsys.readouterr()
    for part in (f"{TOPO} and {TWIN} on toy, n = {N}", "clean", "pgd:steps=2 eps 1", "seed 0", "atan"):
        assert part in printed.out
    assert "result.json" in printed.err
    assert "result.json" not in printed.out


def test_table_and_json_say_how_far_the_numbers_carry(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("sresnet18", "--n", str(N), "--eps", "8", "--steps", "2")
    sign = Sign(check="normal training", message="Too many images survive.")
    monkeypatch.setattr("tdsnn.benchmark.runner.signs", lambda *_, **__: [sign])
    (model,) = answer(capsys, *command)["models"]
    assert "only an upper bound on robustness" in model["caveat"]
    assert model["masking_signs"] == [asdict(sign)]
    assert run(*command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert model["caveat"] in shown
    assert f"WARNING: the gradients of sresnet18 may be masked: {sign.message}" in shown
    assert "without gradient-masking checks" not in shown


def test_noise_needs_no_caveat_and_a_network_at_chance_no_warning(
    capsys: pytest.CaptureFixture[str], toy_zoo: Path
) -> None:
    assert run("sresnet18", "--n", str(N), "--attack", "gaussian") == 0
    assert "upper bound" not in capsys.readouterr().out
    # Hardly trained to anything, this network answers the most frequent class or worse, attacked or not.
    assert run("sresnet18", "--n", str(N), "--eps", "8", "--steps", "2") == 0
    assert "WARNING" not in capsys.readouterr().out


def test_a_bad_number_is_refused_before_anything_is_compiled(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tdsnn.benchmark.entries.compile_entries", None)
    assert run("--n", "999999") == 2
    printed = capsys.readouterr().err
    assert f"1..{N}" in printed
    assert "compiled" not in printed


def test_one_model_without_topography_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    document = answer(capsys, "sresnet18", "--n", str(N), "--eps", "1", "--steps", "2")
    assert [model["name"] for model in document["models"]] == [TWIN]
    assert document["comparisons"] == []


def test_the_json_has_every_figure_with_unit_n_and_interval(capsys: pytest.CaptureFixture[str]) -> None:
    document = answer(capsys, "tsresnet18", "--n", str(N), "--attack", "gaussian", "--attack", "fgsm")
    sweep = [
        ("clean", 0),
        *(("gaussian", e) for e in (8, 16, 32, 64)),
        *(("fgsm", e) for e in (0.5, 1, 2, 4, 8)),
    ]
    for name in (TOPO, TWIN):
        cells = [cell for cell in document["cells"] if cell["model"] == name]
        assert [(cell["attack"], cell["eps_255"]) for cell in cells] == sweep
        for cell in cells:
            figure = cell["accuracy"]
            assert (figure["unit"], figure["n"]) == ("%", N)
            assert figure["low"] <= figure["value"] <= figure["high"]
            assert figure["value"] == pytest.approx(100 * cell["survivors"] / N)
    assert [(row["model"], row["twin"]) for row in document["comparisons"]] == [(TOPO, TWIN)] * len(sweep)
    assert {model["attack_surrogate"] for model in document["models"]} == {"atan, alpha 2"}
    assert document["provenance"]["sources"] == {TOPO: "embedded", TWIN: "embedded"}


def test_a_second_run_gives_identical_numbers_and_another_batch_size_the_same_verdicts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    common = ("sresnet18", "--n", str(N), "--eps", "1", "--steps", "3")
    first = answer(capsys, *common, "--out", str(tmp_path / "a"))
    again = answer(capsys, *common, "--out", str(tmp_path / "a"), "--fresh")
    assert first.pop("provenance")["reused_cells"] == []
    assert again.pop("provenance")["reused_cells"] == []
    assert first == again
    answer(capsys, *common, "--batch-size", "5", "--out", str(tmp_path / "b"))
    ours, other = (load_file(tmp_path / name / "samples.safetensors") for name in "ab")
    assert ours.keys() == other.keys()
    for name, verdicts in ours.items():
        assert (verdicts != other[name]).sum() <= 1


def test_the_same_command_again_reuses_finished_cells(capsys: pytest.CaptureFixture[str]) -> None:
    command = ("sresnet18", "--n", str(N), "--eps", "1", "--steps", "2")
    first = answer(capsys, *command)
    again = answer(capsys, *command)
    assert again["provenance"]["reused_cells"] == [cell["key"] for cell in first["cells"]]
    assert again["cells"] == first["cells"]
    more = answer(capsys, *command, "--eps", "2")
    assert more["cells"][:2] == first["cells"]


def test_a_checkpoint_folder_brings_its_twin_or_says_that_it_has_none(
    capsys: pytest.CaptureFixture[str], toy_zoo: Path, tmp_path: Path
) -> None:
    folder = str(toy_zoo / "checkpoints" / TOPO)
    document = answer(capsys, folder, "--n", str(N), "--eps", "1", "--steps", "2")
    assert [(model["name"], model["twin"]) for model in document["models"]] == [(folder, TWIN), (TWIN, None)]
    assert document["provenance"]["sources"] == {folder: "path", TWIN: "embedded"}
    assert {(row["model"], row["twin"]) for row in document["comparisons"]} == {(folder, TWIN)}
    zoo.save(zoo.load(TOPO), tmp_path / "mine", name="mine", dataset="toy")
    assert run(str(tmp_path / "mine"), "--n", str(N), "--eps", "1", "--steps", "2") == 0
    assert "('mine') is no entry of the zoo" in " ".join(capsys.readouterr().out.split())


def test_attacks_with_other_settings_stand_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    command = ("sresnet18", "--n", str(N), "--attack", "PGD:steps=1,eps=1/255", "--attack", "pgd:steps=3")
    document = answer(capsys, *command, "--attack", "pgd:norm=l2,eps=64,steps=2", "--eps", "1")
    assert [(cell["attack"], cell["variant"], cell["eps_255"]) for cell in document["cells"]] == [
        ("clean", "", 0),
        ("pgd", "steps=1", 1),
        ("pgd", "steps=3", 1),
        ("pgd", "norm=l2,steps=2", 64),
        ("worst case", "", 1),
    ]
    assert document["cells"][3]["norm"] == "l2"


def test_ctrl_c_keeps_the_finished_cells_and_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tdsnn.attacks.pgd import PGD

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "my results"
    with monkeypatch.context() as patch:
        # The gates have passed by then, so the key is pressed in the first attack cell.
        patch.setattr("tdsnn.benchmark.measure._attacked", stop)
        asked = ("sresnet18", "--n", str(N), "--eps", "1", "--steps", "3", "--out", str(out))
        plot = tmp_path / "my curve.svg"
        assert run(*asked, "--plot", str(plot), "--fresh") == 130
    message = capsys.readouterr().err
    line = next(line for line in message.splitlines() if "Go on with: " in line).partition("Go on with: ")[2]
    words = shlex.split(line)
    assert words[:3] == ["tdsnn-zoo", "bench", "sresnet18"]
    assert "--fresh" not in words
    document = answer(capsys, *words[2:])
    assert len(document["provenance"]["reused_cells"]) == 1
    assert document["cells"][1]["settings"] == PGD(steps=3).settings
    assert plot.is_file()


def test_a_cell_without_a_number_ends_with_exit_code_5(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tdsnn.errors import GateError

    def refuse(*_: object, **__: object) -> None:
        raise GateError("The ball was left.")

    monkeypatch.setattr("tdsnn.benchmark.measure._attacked", refuse)
    assert run("sresnet18", "--n", str(N), "--eps", "1") == 5
    printed = capsys.readouterr()
    assert "refused" in printed.out
    assert "1 of 2 cells have no number" in printed.err
    assert "The ball was left." in printed.err


def test_a_model_that_a_gate_refuses_ends_with_exit_code_5(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    model = zoo.load(TWIN)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3e38)  # finite, but not what comes of it
    zoo.save(model, folder, name="broken", dataset="toy")
    assert run(str(folder), "sresnet18", "--n", str(N), "--eps", "1", "--steps", "2", "--json") == 5
    printed = capsys.readouterr()
    assert "not finite" in printed.err
    document = json.loads(printed.out)
    assert [cell["error"] is None for cell in document["cells"]] == [False, False, True, True]
    assert "not finite" in document["models"][0]["refused"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--eps", "-1"), "0..255"),
        (("--n", "0"), f"1..{N}"),
        (("--n", str(N + 1)), f"1..{N}"),
        (("--batch-size", "0", "--n", "1"), "at least 1, not 0"),
        (("--attack", "pdg"), "Did you mean pgd"),
        (("--attack", "fgsm", "--steps", "3"), "takes steps"),
        (("--steps", "0"), "pgd needs a whole number from 1 to 100000 for 'steps'"),
        (("--attack", "pgd:stesp=3"), "did you mean 'steps'?"),
        (("--attack", "pgd:norm=l2,eps=9999", "--n", "1"), "[0, 8] for l2"),
        (("--eps", "0.031"), "0.031 may mean 0.031/255 or"),
        (("tsresnet81",), "Did you mean tsresnet18"),
        (("--device", "tpu"), "no device called 'tpu'"),
        (("no/such/folder",), "no checkpoint folder"),
    ],
)
def test_a_bad_request_names_the_allowed_range_and_ends_with_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


def test_models_of_different_datasets_share_no_table(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    zoo.save(zoo.load(TWIN), tmp_path / "other", name="other", dataset="digits")
    assert run("sresnet18", str(tmp_path / "other")) == 2
    assert "different datasets" in capsys.readouterr().err


def test_the_function_gives_the_numbers_of_the_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ("tsresnet18", "--n", str(N), "--attack", "pgd:steps=2", "--eps", "1", "--eps", "8/255")
    document = answer(capsys, *command, "--out", str(tmp_path / "command"))
    told: list[tuple[int, int]] = []
    result = tdsnn.bench(
        "tsresnet18",
        attacks="pgd:steps=2",
        eps=[1, "8/255"],
        n=N,
        out=tmp_path / "function",
        progress=lambda done, total, what="", /: told.append((done, total)),
    )
    assert result.provenance["reused_cells"] == []
    assert {**result.document(), "provenance": None} == {**document, "provenance": None}
    assert told[-1] == (6 * N, 6 * N), "two models, without attack and with two strengths"
    assert run(*command, "--out", str(tmp_path / "command")) == 0
    shown, text = capsys.readouterr().out, repr(result)
    for row in [cell for cell in result.cells if cell.accuracy]:
        assert f"{row.accuracy.value:.1f} [{row.accuracy.low:.1f}" in text
    assert f"{TOPO} and {TWIN} on toy, n = {N}" in text
    assert {*text.split()} - {*shown.replace("│", " ").split()} <= {"-" * width for width in range(1, 99)}


def test_the_plot_shows_what_is_left_at_each_radius(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "curve.svg"
    assert run(TWIN, "--attack", "fgsm", "--eps", "2", "--eps", "8", "--n", str(N), "--plot", str(plot)) == 0
    assert f"Figure: {plot}" in capsys.readouterr().err
    assert plot.read_bytes().startswith(b"<?xml")
    assert run(TWIN, "--attack", "gaussian", "--n", str(N), "--plot", str(tmp_path / "none.png")) == 0
    assert "No figure: no attack with a radius" in capsys.readouterr().err
    assert not (tmp_path / "none.png").exists()
    assert run(TWIN, "--plot", "curve.jpg") == 2
    assert "A figure is a .png or .svg file, not 'curve.jpg'." in capsys.readouterr().err
    assert run(TWIN, "--plot", ".") == 2
    assert "A figure is a .png or .svg file, not '.'." in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--plot", "--svg"])
def test_no_figure_is_computed_that_could_not_be_written(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.svg").mkdir()
    for place, sentence in (("file/curve.svg", "is no folder"), ("folder.svg", "is a folder")):
        assert run(TWIN, "--n", str(N), option, str(tmp_path / place)) == 2
        said = capsys.readouterr().err
        assert sentence in said
        assert option in said.splitlines()[-1]
        assert "Preparing" not in said


def test_the_table_ends_with_what_it_means_and_what_to_type_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(TOPO, "--attack", "fgsm", "--eps", "2", "--eps", "8", "--n", str(N)) == 0
    said = capsys.readouterr().err
    assert re.search(
        r"(No difference between tsresnet18 and its twin sresnet18 is shown|t?sresnet18 keeps more than \w+) "
        r"under fgsm at 8/255: [+-]\d",
        said,
    )
    assert f"tdsnn-zoo bench {TOPO} --suite standard-v1" in said


def test_a_log_gets_lines_of_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tdsnn.cli._progress.LINE_SECONDS", 0.0)
    assert run(TWIN, "--attack", "fgsm", "--eps", "2", "--n", str(N)) == 0
    assert f"{TWIN}: fgsm 2: {2 * N} of {2 * N} images" in capsys.readouterr().err
