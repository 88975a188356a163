"""``python -m benchmarks.speed``: our code beside the stock path, timed in turn in one process.

Each module of this folder without an underscore is one part. It has a function ``run`` that takes the
settings and returns rows; nothing else has to be edited to add one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdsnn.cli import _output
from tdsnn.errors import MissingError, TdsnnError
from tdsnn.files import write_atomic

if TYPE_CHECKING:
    from benchmarks.speed._measure import Row, Settings

SCHEMA = 1
PARTS = tuple(
    sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
)
_ROUNDS, _QUICK_ROUNDS = 7, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show and store; the exit code of the outcome. A missed target is a result, not a failure."""
    options = _parser().parse_args(arguments)
    try:
        rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
        document = measure(options.only, quick=options.quick, rounds=rounds)
        if options.out is not None:
            write_atomic(options.out, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
    except TdsnnError as error:
        _output.fail(error)
        return error.exit_code
    if options.json:
        _output.emit_json(document)
    else:
        _show(document)
    return 0


def measure(parts: Sequence[str], *, quick: bool, rounds: int) -> dict[str, Any]:
    """Run the parts and return the JSON document.

    A part that cannot run here is named in ``skipped`` with the reason; it never gives a number.
    """
    import torch

    from benchmarks.speed._measure import Settings
    from benchmarks.speed._steps import make_ours
    from tdsnn.runtime import environment

    started, load = time.perf_counter(), os.getloadavg()
    compiled = make_ours(width=1).compile_operators()
    rows, skipped = _measure_parts(parts, Settings(rounds=rounds, quick=quick))
    return {
        "schema": SCHEMA,
        "settings": {"parts": list(parts), "quick": quick, "rounds": rounds},
        "rows": rows,
        "skipped": skipped,
        "compiled": compiled,
        "environment": environment(torch.device("cpu")),
        "load_average_before": load[0],
        "load_average_after": os.getloadavg()[0],
        "seconds": round(time.perf_counter() - started, 1),
    }


def _measure_parts(parts: Sequence[str], settings: Settings) -> tuple[list[dict[str, Any]], dict[str, str]]:
    rows: list[dict[str, Any]] = []
    skipped = {}
    for number, part in enumerate(parts, start=1):
        _output.note(f"[{number}/{len(parts)}] {part} ...")
        try:
            found: list[Row] = _load(part).run(settings)
        except TdsnnError as error:
            skipped[part] = error.message
            _output.fail(error)
        else:
            rows += [{"part": part, **row.document()} for row in found]
    return rows, skipped


def _load(part: str) -> Any:
    try:
        return importlib.import_module(f"benchmarks.speed.{part}")
    except ModuleNotFoundError as error:
        raise MissingError(
            f"The part '{part}' needs the package '{error.name}', which is not installed.",
            hint="Install everything that is compared: make .venv/.installed-dev",
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description="Our code beside the stock path, timed in turn in one process: medians, ratios, "
        "their spread over the rounds, targets.",
    )
    parser.add_argument("--quick", action="store_true", help="less work, to try things out (about 2 minutes)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the JSON document to this file")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"parts: {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--rounds",
        type=_positive,
        help=f"rounds of a comparison ({_ROUNDS}; {_QUICK_ROUNDS} with --quick)",
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1 round is needed")
    return value


def _show(document: dict[str, Any]) -> None:
    _output.table(
        "Speed of our code beside the stock path",
        ("measured", "stock", "ours", "unit", "ratio", "spread", "target", "reached", "of peak"),
        [_cells(row) for row in document["rows"]],
        caption=f"Medians over {document['settings']['rounds']} rounds (costly parts: fewer); spread: least "
        "and greatest ratio of a round;\nof peak: part of the matrix-product peak that our side reaches.",
    )
    details = [
        (row["name"], key.replace("_", " "), _plain(value))
        for row in document["rows"]
        for key, value in row["details"].items()
    ]
    if details:
        _output.table("Details", ("measured", "detail", "value"), details)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    ratio, target, share = row["ratio"], row["target"], row["peak_share"].get("ours")
    return (
        row["name"],
        "" if row["stock"] is None else f"{row['stock']:,.4g}",
        f"{row['ours']:,.4g}",
        row["unit"],
        "" if ratio is None else f"{ratio['median']:.3g}",
        "" if ratio is None else f"{ratio['low']:.3g} to {ratio['high']:.3g}",
        "" if target is None else f"{target['bound']} {target['value']:g}",
        {None: "", True: "yes", False: "no"}[row["reached"]],
        "" if share is None else f"{share:.0%}",
    )


def _plain(value: float | list[float]) -> str:
    return " ".join(f"{x:.4g}" for x in value) if isinstance(value, list) else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
