"""``tdsnn-zoo doctor``: what this machine has, and which code the project therefore runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from shlex import quote
from typing import TYPE_CHECKING

from tdsnn.cli import _output

if TYPE_CHECKING:
    from tdsnn.cli._doctor_findings import Report


def command(json: _output.JsonFlag = False) -> None:
    """Report what this machine has and which code runs on it.

    CPU, compiler, the path chosen for each operator and why, CUDA, versions, folders, where each dataset
    would come from, and the Hub. The C++ operators are compiled if they are not yet. The exit code is 0
    also when something is missing; each problem comes with what helps.

    Examples:

        tdsnn-zoo doctor

        tdsnn-zoo doctor --json
    """
    from tdsnn.cli._doctor_findings import examine, problems

    report = examine()
    found = problems(report)
    if json:
        _output.emit_json({**report, "problems": found})
        return
    for title, rows in _sections(report):
        _show(title, rows)
    out = _output.console()
    out.print("Problems" if found else "No problems found", style="bold")
    for each in found:
        out.print("\n    ".join([f"  {each['problem']}", *each["help"]]), markup=False, soft_wrap=True)


def _sections(report: Report) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Titles and rows for people."""
    yield "Machine", list(_machine_rows(report))
    yield "Versions", [(name, version or "not installed") for name, version in report["versions"].items()]
    yield (
        "Operators of a model loaded with compile=True",
        [
            (f"{each['operator']} ({each['device']})", each["path"], each["reason"])
            for each in report["operators"]
        ],
    )
    yield (
        "Folders",
        [
            (
                variable,
                folder["path"],
                "writable" if folder["writable"] else "NOT WRITABLE",
                f"{folder['free_gib']:,.1f} GiB free",
            )
            for variable, folder in report["folders"].items()
        ],
    )
    yield "Datasets", [row for dataset in report["datasets"] for row in _dataset_rows(dataset)]
    hub = report["hub"]
    state = f"not asked: {hub['problem']}" if hub["offline"] else f"no answer: {hub['problem']}"
    yield "Hub", [(hub["endpoint"], state if hub["problem"] else "answers")]


def _machine_rows(report: Report) -> Iterator[tuple[str, str]]:
    cpu, compiler, cuda = report["cpu"], report["compiler"], report["cuda"]
    words = {True: "yes", False: "no", None: "not determined"}
    usable = "not determined" if cpu["usable_cores"] is None else cpu["usable_cores"]
    yield "system", report["platform"]
    yield "CPU", cpu["name"] or "not determined"
    yield "features", ", ".join(f"{name}: {words[has]}" for name, has in cpu["features"].items())
    yield (
        "cores",
        f"{cpu['cores']}, of which this process may use {usable}; PyTorch threads: {cpu['threads']}",
    )
    yield (
        "compiler",
        f"{compiler['path']} ({compiler['version'] or 'no version'})" if compiler else "none found",
    )
    built = f"PyTorch built for CUDA {cuda['pytorch_built_for']}"
    yield "CUDA", built if cuda["pytorch_built_for"] else "PyTorch built without CUDA"
    for index, device in enumerate(cuda["devices"]):
        memory = f"{device['memory_gib']:.1f} GiB"
        yield f"cuda:{index}", f"{device['name']}, {memory}, compute capability {device['capability']}"
    if not cuda["devices"]:
        yield "CUDA devices", "none"
    code = report["code"]
    changed = " with changes" if code and code["dirty"] else ""
    yield "code", f"commit {code['commit']}{changed}" if code else "commit not determined"


def _dataset_rows(dataset: Report) -> Iterator[tuple[str, str, str]]:
    undone = [split for split in dataset["splits"] if split not in dataset["decoded"]]
    fetch = [f"not {', '.join(undone)} (tdsnn-zoo data fetch {quote(dataset['name'])})"] if undone else []
    state = "never, it is streamed" if dataset["streamed"] else "; ".join([*dataset["decoded"], *fetch])
    yield dataset["name"], "decoded", state
    for source in dataset["sources"]:
        lacks = [f"not {split}: {lack['reason']}" for split, lack in source["missing"].items()]
        # If it has nothing, one reason says enough.
        found = [", ".join(source["has"]), *lacks] if source["has"] else lacks[:1]
        yield "", source["source"], "; ".join(found)


def _show(title: str, rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        # Text, because a path or a reason may hold what rich would read as markup.
        grid.add_row(*(Text(f"  {cell}" if index == 0 else cell) for index, cell in enumerate(row)))
    out = _output.console()
    out.print(title, style="bold", markup=False)
    out.print(grid)
