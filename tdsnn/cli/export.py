"""``tdsnn-zoo export``: a model as a file of another format, with a proof that it answers the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tdsnn.cli import _output, _progress
from tdsnn.cli._completion import format_names, zoo_models
from tdsnn.errors import UsageError

_KNOWN = [name.replace("_", "-") for name in format_names()]

IMAGES = 1000
"""That --verify compares."""


def command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", autocompletion=zoo_models, help="Zoo entry, checkpoint folder or repository."
        ),
    ],
    format: Annotated[str, typer.Option("--format", help=f"One of: {', '.join(_KNOWN)}.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare logits and all spikes on test images; time both.")
    ] = False,
    timesteps: Annotated[
        int | None, typer.Option("--timesteps", metavar="T", help="1 to 64. Default: the model's own")
    ] = None,
    n: Annotated[
        int | None,
        typer.Option("--n", help="Test images for --verify. Default: 1000", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    as_json: _output.JsonFlag = False,
) -> None:
    """Write a model as a file that runs without this package.

    It takes images (N, C, H, W) in [0, 1]; normalisation is inside, batch normalisation folded. The file is
    read back before it gets its name. With --verify a certificate beside it says how logits, classes and
    spikes on test images differ from the model's.

    Examples:

        tdsnn-zoo export tsresnet18 --format onnx --out tsresnet18.onnx --verify

        tdsnn-zoo export tsresnet18 --format nir --out tsresnet18.nir

        tdsnn-zoo export sresnet18 --format torch-export --out sresnet18.pt2 --timesteps 8
    """
    if n is not None and not verify:
        raise UsageError(
            "--n says how many images --verify compares.", hint="Add --verify, or leave --n out."
        )
    from tdsnn.certificates import beside
    from tdsnn.exporting.api import export

    with _progress.bar("exporting", unit="images") as progress:
        found = export(
            name,
            format=format,
            out=out,
            timesteps=timesteps,
            verify=verify,
            n=IMAGES if n is None else n,
            force=force,
            progress=progress,
        )
    certificate = found.certificate
    if as_json:
        _output.emit_json(
            {
                "file": str(found.path),
                **found.metadata.texts(),
                "certificate": certificate.document() if certificate else None,
            }
        )
    elif certificate:
        for table in certificate.tables():
            _output.show(table)
        _output.note(f"Certificate: {beside(found.path)}")
    _output.note(f"Written and read back: {found.path}")
