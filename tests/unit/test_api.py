"""What ``import tdsnn`` offers."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import tdsnn
from tdsnn.table import Table

FUNCTIONS = sorted(set(tdsnn.__all__) - {"__version__"})
PLUG_INS = ("models", "attacks", "metrics", "data", "tasks", "topography.losses", "exporting.formats")
EXAMPLE = Path(__file__).parents[1] / "plugin"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_name_is_a_documented_function_with_types(name: str) -> None:
    found = getattr(tdsnn, name)
    assert callable(found)
    assert name in dir(tdsnn)
    signature = inspect.signature(found)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(one.annotation is not inspect.Parameter.empty for one in signature.parameters.values())


def test_type_checkers_see_the_same_names() -> None:
    (block,) = [node for node in ast.parse(Path(tdsnn.__file__).read_text()).body if isinstance(node, ast.If)]
    imported = [alias.name for node in block.body for alias in node.names]
    assert sorted(imported) == FUNCTIONS


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'loads'"):
        tdsnn.loads  # noqa: B018


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, tdsnn\n"
        "assert set(tdsnn.__all__) <= set(dir(tdsnn))\n"
        "tdsnn.list_models(), tdsnn.bench, tdsnn.compare\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
        "try: tdsnn.bench('tsresnet81')\n"
        "except tdsnn.errors.UsageError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Did you mean tsresnet18" in done.stdout, done.stderr


@pytest.mark.parametrize("package", PLUG_INS)
def test_a_plug_in_finds_what_it_needs(package: str) -> None:
    module = __import__(f"tdsnn.{package}", fromlist=["*"])
    assert all(hasattr(module, name) for name in module.__all__)


def test_the_example_imports_nothing_private() -> None:
    for path in EXAMPLE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not any(part.startswith("_") for part in (node.module or "").split(".")[1:]), path


def test_a_table_is_text() -> None:
    table = Table(title="T", columns=("name", "%"), rows=[("a", "1.5"), ("long", "10.25")], caption="C.")
    assert str(table) == "T\nname      %\n----  -----\na       1.5\nlong  10.25\nC."
