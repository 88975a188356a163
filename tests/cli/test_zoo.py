"""``list``, ``info`` and ``download`` by exit code, output and start-up cost."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import run

from tdsnn import paths
from tdsnn.files import sha256_of
from tdsnn.manifest import resolve, write_release
from tdsnn.schema import FileRecord, Release

NAME = "tsresnet18.fashion_mnist"
FILES = {"config.json": b"{}", "model.safetensors": b"tensors"}
LIMIT_SECONDS = 0.5
REFERENCE_SECONDS = 0.1
"""What importing typer and rich takes on an idle machine that keeps the limit."""
HEAVY = {
    *(
        "pydantic",
        "torch",
        "spikingjelly",
        "numpy",
        "scipy",
        "datasets",
        "pyarrow",
        "PIL",
        "matplotlib",
        "jinja2",
    ),
    *("huggingface_hub", "safetensors", "urllib.request", "http.client", "ssl", "asyncio", "rich.progress"),
    *(
        "tdsnn.models",
        "tdsnn.data",
        "tdsnn.attacks",
        "tdsnn.benchmark.plan",
        "tdsnn.topography",
        "tdsnn.training",
    ),
}
"""What a command that only reads the zoo's texts has no use for."""


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def zoo_copy(project: Path, cache: Path) -> Path:
    """The real manifests with a made-up release and embedded files of one model; returns that folder."""
    checkout = Path(paths.__file__).resolve().parents[1]
    shutil.copytree(checkout / "zoo" / "models", project / "zoo" / "models", dirs_exist_ok=True)
    folder = project / "zoo" / "checkpoints" / NAME
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    records = tuple(
        FileRecord(path=name, size=len(content), sha256=sha256_of(folder / name))
        for name, content in FILES.items()
    )
    metrics = {
        "clean_accuracy": {"value": 92.25, "unit": "%", "n": 10000, "interval": [91.71, 92.76]},
        "parameters": {"value": 700000, "unit": "count"},
        "rate_correlation": {"unit": "Pearson r", "layers": {"layer1.0": 0.55, "layer1.1": 0.53}},
    }
    write_release(Release(name=NAME, files=records, metrics=metrics, provenance={"seed": 0}))
    return folder


def test_list(zoo_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = {model["name"]: model for model in answer(capsys, "list")["models"]}
    topographic, twin = models[NAME], models["sresnet18.fashion_mnist"]
    assert topographic["weights"] == "embedded"
    assert topographic["clean_accuracy_percent"] == 92.25
    assert topographic["parameters"] == 700000
    assert topographic["timesteps"] == 4
    assert twin["weights"] is None
    assert twin["clean_accuracy_percent"] is None
    assert run("list") == 0
    shown = capsys.readouterr().out
    for text in (NAME, "fashion_mnist", "92.25", "0.70 M", "embedded", "none"):
        assert text in shown


def test_list_filters(zoo_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def names(*options: str) -> set[str]:
        return {model["name"] for model in answer(capsys, "list", *options)["models"]}

    everything = names()
    with_loss, without = names("--topographic"), names("--no-topographic")
    assert NAME in with_loss
    assert "sresnet18.fashion_mnist" in without
    assert with_loss | without == everything
    assert not with_loss & without
    assert NAME in names("--dataset", "fashion_mnist", "--architecture", "sresnet18")


@pytest.mark.parametrize("released", [False, True])
def test_list_takes_one_look_at_each_entry(
    project: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    released: bool,
) -> None:
    """However many there are: scans of folders stay the same, reads are two for each entry at most."""
    counts = {"scans": 0, "reads": 0}
    scan, texts, contents = Path.glob, Path.read_text, Path.read_bytes

    def scanning(path: Path, pattern: str) -> Any:
        counts["scans"] += 1
        return scan(path, pattern)

    def text(path: Path, **options: Any) -> str:
        counts["reads"] += 1
        return texts(path, **options)

    def content(path: Path) -> bytes:
        counts["reads"] += 1
        return contents(path)

    monkeypatch.setattr(Path, "glob", scanning)
    monkeypatch.setattr(Path, "read_text", text)
    monkeypatch.setattr(Path, "read_bytes", content)
    manifest = 'summary = "x"\ntwin = "net.d0"\n[model]\narchitecture = "sresnet18"\n[data]\nname = "d"\n'
    seen = []
    for number in range(20):
        (project / "zoo" / "models" / f"net.d{number}.toml").write_text(manifest)
        if released:
            write_release(Release(name=f"net.d{number}", files=(), metrics={}, provenance={}))
        if number in (4, 19):
            counts.update(scans=0, reads=0)
            assert len(answer(capsys, "list")["models"]) == number + 1
            seen.append(dict(counts))
    assert seen[0]["scans"] == seen[1]["scans"]
    assert seen[1]["reads"] == 20 * (2 if released else 1)


def test_list_shows_the_mean_over_seeds(zoo_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, accuracy in ((1, 92.0), (2, 93.05)):
        metrics = {"clean_accuracy": {"value": accuracy, "unit": "%", "n": 10000, "interval": [90.0, 95.0]}}
        write_release(Release(name=f"{NAME}-s{seed}", files=(), metrics=metrics, provenance={}))
    rows = {row["name"]: row for row in answer(capsys, "list")["models"]}
    assert f"{NAME}-s1" not in rows
    assert rows[NAME]["clean_accuracy_percent"] == pytest.approx((92.25 + 92.0 + 93.05) / 3)
    assert (rows[NAME]["seeds"], rows["sresnet18.fashion_mnist"]["seeds"]) == (3, 0)
    assert run("list") == 0
    assert "92.43 (3 seeds)" in capsys.readouterr().out
    shown = answer(capsys, "list", "--seeds", "--topographic")["models"]
    rows = {row["name"]: row for row in shown if row["name"].startswith(NAME)}
    assert list(rows) == [NAME, f"{NAME}-s1", f"{NAME}-s2"]
    assert [row["clean_accuracy_percent"] for row in rows.values()] == [92.25, 92.0, 93.05]
    assert run("list", "--seeds") == 0
    assert "seeds)" not in capsys.readouterr().out


def test_list_reads_each_release_once(zoo_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    contents = Path.read_bytes

    def reading(path: Path) -> bytes:
        read.append(path.name)
        return contents(path)

    monkeypatch.setattr(Path, "read_bytes", reading)
    assert run("list") == 0
    assert read.count(f"{NAME}.json") == 1


@pytest.mark.parametrize(
    ("option", "value"), [("--dataset", "fashion_mist"), ("--architecture", "sresnet81")]
)
def test_list_refuses_unknown_filters(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", option, value) == 2
    captured = capsys.readouterr()
    assert "Did you mean" in captured.err
    assert captured.out == ""


def test_info(zoo_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = answer(capsys, "info", "tsresnet18")
    assert (document["name"], document["twin"]) == (NAME, "sresnet18.fashion_mnist")
    assert (document["weights"], document["folder"]) == ("embedded", str(zoo_copy))
    assert document["release"]["metrics"]["rate_correlation"]["layers"]["layer1.0"] == 0.55
    assert run("info", NAME) == 0
    shown = capsys.readouterr().out
    for text in (
        "sresnet18.fashion_mnist",
        "91.71 to 92.76",
        "10,000",
        "rate_correlation",
        "layer1.1",
        "0.53",
    ):
        assert text in shown
    for name in FILES:
        assert sha256_of(zoo_copy / name) in shown


def test_info_without_release(zoo_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = answer(capsys, "info", "sresnet18")
    assert (document["weights"], document["folder"], document["release"]) == (None, None, None)
    assert run("info", "sresnet18") == 0
    assert "none released" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["info", "download"])
def test_unknown_model_suggests(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "tsresnet81") == 2
    captured = capsys.readouterr()
    assert "Did you mean tsresnet18" in captured.err
    assert "tdsnn-zoo list" in captured.err
    assert captured.out == ""


def test_download_embedded(zoo_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("download", "tsresnet18") == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == str(zoo_copy)
    assert "no network was used" in captured.err
    target = tmp_path / "to"
    document = answer(capsys, "download", "tsresnet18", "--to", str(target))
    assert document == {"name": NAME, "folder": str(target), "source": "embedded"}
    assert {path.name: path.read_bytes() for path in target.iterdir()} == FILES


def test_download_of_damaged_file(zoo_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (zoo_copy / "model.safetensors").write_bytes(b"tensorz")
    assert run("download", "tsresnet18") == 3
    captured = capsys.readouterr()
    assert "model.safetensors' is altered" in captured.err
    assert captured.out == ""


def test_download_of_nothing_released(zoo_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("download", "sresnet18") == 4
    assert "tdsnn-zoo train sresnet18.fashion_mnist" in capsys.readouterr().err


def seconds_of(*arguments: str) -> float:
    """Processor time of one Python process, which hardly depends on what else the machine does."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return used() - before


@pytest.fixture(scope="module")
def limit_seconds() -> float:
    """The limit, raised in proportion on a machine that is slower or busier than the usual one."""
    reference = min(seconds_of("-c", "import typer, rich.table") for _ in range(3))
    return LIMIT_SECONDS * max(1.0, reference / REFERENCE_SECONDS)


@pytest.mark.parametrize("arguments", [["list"], ["info", "tsresnet18"], ["--help"], ["list", "--help"]])
def test_fast(arguments: list[str], limit_seconds: float) -> None:
    assert any(seconds_of("-m", "tdsnn", *arguments) < limit_seconds for _ in range(5))


@pytest.mark.parametrize(
    "arguments", [["list"], ["info", "tsresnet18"], ["--help"], ["bench", "--help"], ["compare", "--help"]]
)
def test_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom tdsnn.cli.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"heavy = {HEAVY} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("part", ["models", "releases"])
def test_a_damaged_entry_is_a_row_and_ends_nothing_for_the_others(
    zoo_copy: Path,
    part: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = answer(capsys, "list")["models"]
    lab = tmp_path / "lab"
    for folder in ("models", "releases"):
        (lab / folder).mkdir(parents=True)
    entry = (paths.bundled("zoo", "models") / f"{NAME}.toml").read_text().replace("default = true", "")
    name = f"{NAME.partition('.')[0]}.broken"
    (lab / "models" / f"{name}.toml").write_text(entry if part == "releases" else "fashion[/b] = \x07")
    if part == "releases":
        (lab / "releases" / f"{name}.json").write_text("[" * 10_000)
    monkeypatch.setenv("TDSNN_ZOO", str(lab))
    assert run("list") == 0
    shown = capsys.readouterr()
    assert re.search(rf"{name} .*damaged", shown.out)
    assert f"{name}: The " in shown.err
    models = answer(capsys, "list")["models"]
    (broken,) = [row for row in models if "error" in row]
    assert broken["name"] == name
    assert [row for row in models if row is not broken] == before
    assert resolve(NAME.partition(".")[0]).name == NAME, "the bare name means what it meant"
