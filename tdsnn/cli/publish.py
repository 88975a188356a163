"""``tdsnn-zoo publish``: put a finished run into the zoo."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tdsnn.cli import _output


def command(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a finished run, e.g. runs/NAME.")],
    as_json: _output.JsonFlag = False,
) -> None:
    """Measure a finished run and embed its checkpoint in this checkout.

    Writes `zoo/checkpoints/NAME` and `zoo/releases/NAME.json`; the accuracy in it is what `bench` measures.

    Example:

    * `tdsnn-zoo publish runs/tsresnet18.fashion_mnist`
    """
    from tdsnn.train.release import embed

    release = embed(run_dir)
    if as_json:
        _output.emit_json(asdict(release))
        return
    accuracy = release.metrics["clean_accuracy"]
    out = _output.console()
    out.print(f"Embedded {release.name}: {accuracy['value']:.2f} % on {accuracy['n']:,} test images.")
    for record in release.files:
        out.print(f"{record.path:<18} {record.size:>9,} bytes  sha256 {record.sha256}", markup=False)
