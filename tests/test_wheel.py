"""The wheel carries the zoo: built here, installed into an empty folder, run from somewhere else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tdsnn.manifest import entry_and_seed

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(folder),
    ]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    return folder


def call(installed: Path, elsewhere: Path, *arguments: str) -> Any:
    environment = os.environ | {"PYTHONPATH": str(installed), "TDSNN_CACHE": str(elsewhere / "cache")}
    script = [sys.executable, str(installed / "bin" / "tdsnn-zoo"), *arguments, "--json"]
    done = subprocess.run(script, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_only_tdsnn_is_installed(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"tdsnn"}
    for path in (ROOT / "zoo").rglob("*"):
        if path.is_file() and path.suffix in {".toml", ".json", ".safetensors"}:
            # Weights of other seeds than the first would make it several times as large.
            weights_of_others = path.parents[1].name == "checkpoints" and entry_and_seed(path.parent.name)[1]
            packed = f"tdsnn/_bundled/{path.relative_to(ROOT).as_posix()}" in names
            assert packed != bool(weights_of_others), path
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "tdsnn/py.typed" in names


def test_list_and_info(installed: Path, tmp_path: Path) -> None:
    names = [model["name"] for model in call(installed, tmp_path, "list")["models"]]
    assert "tsresnet18.fashion_mnist" in names
    info = call(installed, tmp_path, "info", "tsresnet18")
    assert info["name"] == "tsresnet18.fashion_mnist"


def test_download_of_the_embedded_model(installed: Path, tmp_path: Path) -> None:
    document = call(installed, tmp_path, "download", "tsresnet18")
    assert document["source"] == "embedded"
    assert installed in Path(document["folder"]).parents
    assert (Path(document["folder"]) / "model.safetensors").is_file()
