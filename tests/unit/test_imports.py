"""Who may import whom: every import of the package, also those inside functions, must point downwards."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import tdsnn

ROOT = Path(tdsnn.__file__).parent
LAYERS = (
    {"schema", "validation", "errors", "progress", "processes", "table", "text"},
    {"paths", "registry", "runtime", "files", "origin", "drawing", "settings"},
    {"manifest", "naming", "hub", "weights", "results", "result_tables", "stats", "store", "topography"}
    | {"kernels", "verdicts", "certificates", "tasks", "result_folder", "time_tables"},
    {"models", "data", "attacks", "metrics"},
    {"zoo", "inference", "evaluation", "benchmark", "maps"}
    | {"training", "publish", "exporting", "report", "sweep", "temporal"},
    {"cli"},
)
HEIGHT = {part: height for height, layer in enumerate(LAYERS) for part in layer}
KINDS = {"models", "data", "attacks", "metrics"}
CONTRACT = "tdsnn.models._base"
HUB_USERS = {"report/cards.py"}
REPORT_USES = {
    "schema",
    "validation",
    "drawing",
    "errors",
    "certificates",
    "paths",
    "registry",
    "files",
    "table",
    "text",
    "results",
    "stats",
    "manifest",
    "hub",
    "report",
}
FILES = sorted(ROOT.rglob("*.py"))
MODULES = {
    ".".join(["tdsnn", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in FILES
}


class Imports(ast.NodeVisitor):
    """Absolute names of all imported modules, except those below ``if TYPE_CHECKING``."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for statement in node.orelse:
                self.visit(statement)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [alias.name for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "imports are absolute"
        module = node.module or ""
        # `from tdsnn import paths` imports tdsnn.paths; `from tdsnn.paths import x` imports tdsnn.paths.
        named = {f"{module}.{alias.name}" for alias in node.names}
        modules = named & MODULES.keys()
        self.found += [*([module] if named - modules and module != "tdsnn" else []), *sorted(modules)]


def imports(path: Path) -> list[str]:
    visitor = Imports()
    visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
    return visitor.found


def part_of(module: str) -> str:
    """Module or folder right below the package: ``tdsnn.data._base`` belongs to ``data``."""
    return module.split(".")[1]


def inner_edges(path: Path) -> Iterator[tuple[str, str]]:
    """(part that imports, full name imported) for every import within the package."""
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for module in imports(path):
        if module.startswith("tdsnn.") and not module.startswith("tdsnn.__"):
            yield part, module


def problem(part: str, module: str) -> str:
    """Why ``part`` may not import ``module``, or an empty string."""
    target = part_of(module)
    if part == target:
        return ""
    if part not in HEIGHT or target not in HEIGHT:
        return "a part of the package without a place in LAYERS"
    if HEIGHT[target] > HEIGHT[part]:
        return "an upward import"
    if {part, target} <= KINDS and not (part in {"attacks", "metrics"} and module == CONTRACT):
        return "an import between kinds"
    if part == "report" and target not in REPORT_USES:
        return "a report needs results only"
    return ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    if path == ROOT / "__main__.py":
        assert imports(path) == ["tdsnn.cli.main"]
        return
    if path == ROOT / "__init__.py":
        assert not [module for module in imports(path) if module.split(".")[0] in {"tdsnn", "torch"}]
        return
    wrong = [(module, why) for part, module in inner_edges(path) if (why := problem(part, module))]
    assert wrong == []


@pytest.mark.parametrize(
    ("part", "module", "refused"),
    [
        ("manifest", "tdsnn.zoo", True),
        ("topography", "tdsnn.models._base", True),
        ("data", "tdsnn.models._base", True),
        ("attacks", "tdsnn.models.sresnet18", True),
        ("attacks", "tdsnn.models._base", False),
        ("report", "tdsnn.benchmark.runner", True),
        ("benchmark", "tdsnn.zoo", False),
        ("cli", "tdsnn.benchmark.runner", False),
        ("zoo", "tdsnn.cli.list", True),
        ("zoo", "tdsnn.unheard_of", True),
    ],
)
def test_the_rule_itself(part: str, module: str, refused: bool) -> None:
    assert bool(problem(part, module)) == refused


def cycle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Modules of which each imports the next one and the last the first; empty if there are none."""
    order = TopologicalSorter(graph)
    try:
        order.prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other() -> None:
    """Also within a package, and from inside functions."""
    graph = {
        name: [found for found in imports(path) if found in MODULES and found != name]
        for name, path in MODULES.items()
    }
    assert sum(map(len, graph.values())) > len(graph)
    assert cycle(graph) == []


def test_a_cycle_is_found() -> None:
    chain = {"a": ["b"], "b": ["c"], "c": []}
    assert cycle(chain) == []
    assert set(cycle(chain | {"c": ["a"]})) == {"a", "b", "c"}


def test_hub_client_only_in_its_folder() -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(module.split(".")[0] == "huggingface_hub" for module in imports(path))
    }
    assert users
    assert {user for user in users if not user.startswith("hub/")} <= HUB_USERS


def test_print_only_in_output() -> None:
    def prints(path: Path) -> bool:
        return any(
            (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print")
            or (
                isinstance(node, ast.Attribute) and node.attr == "stdout" and ast.unparse(node.value) == "sys"
            )
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        )

    assert {str(path.relative_to(ROOT)) for path in FILES if prints(path)} == {"cli/_output.py"}


def test_commands_import_no_torch_at_the_top() -> None:
    for path in sorted((ROOT / "cli").glob("*.py")):
        visitor = Imports()
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
                visitor.visit(statement)
        assert "torch" not in {module.split(".")[0] for module in visitor.found}, path
