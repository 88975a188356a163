"""``tdsnn-zoo train``: train a zoo entry, or continue a run."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from tdsnn.cli import _output
from tdsnn.cli._completion import zoo_models

_EXAMPLES = """
Examples:

    tdsnn-zoo train tsresnet18.fashion_mnist

    tdsnn-zoo train sresnet18.fashion_mnist --epochs 1 --set batch_size=64 --set model.width=8

    tdsnn-zoo train tsresnet18.fashion_mnist --resume

    torchrun --nproc-per-node 2 -m tdsnn train tsresnet18.fashion_mnist
"""


def command(
    name: Annotated[
        str, typer.Argument(autocompletion=zoo_models, help="Zoo entry to train; see `tdsnn-zoo list`.")
    ],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; repeatable.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Short for --set epochs=N.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in its folder.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:INDEX.")] = "auto",
    run_dir: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/NAME.")] = None,
    auxiliary: Annotated[
        str | None,
        typer.Option(
            "--sheets-from",
            metavar="NAME|DIR",
            help="Whose responses arrange pre-optimised sheets; default the twin in the zoo.",
        ),
    ] = None,
    as_json: _output.JsonFlag = False,
) -> None:
    """Train a zoo entry; its state survives Ctrl-C, SIGTERM and any kill."""
    from tdsnn.schema import plain
    from tdsnn.training.session import train

    changed = list(settings or [])
    if epochs is not None:
        changed.append(f"epochs={epochs}")
    outcome = train(
        name,
        settings=changed,
        resume=resume,
        device=device,
        run_dir=run_dir,
        auxiliary=auxiliary,
        watcher=_Lines(),
        note=_output.note,
    )
    if outcome is None:
        return
    assert outcome.held_out_accuracy is not None, "the run was just measured"
    if as_json:
        _output.emit_json(plain(outcome))
    else:
        _output.console().print(
            f"Trained {name}: {outcome.held_out_accuracy:.2%} of the {outcome.n:,} held-out images."
        )
        if outcome.held_out_robust_accuracy is not None:
            _output.console().print(
                f"Under PGD-10 in the ball that it was trained on: {outcome.held_out_robust_accuracy:.2%}."
            )
        _output.console().print(f"Checkpoint: {outcome.checkpoint}", markup=False)


command.__doc__ = f"{command.__doc__}\n{_EXAMPLES}"


class _Lines:
    """Progress on stderr: one line that is rewritten on a terminal, one line an epoch elsewhere."""

    def __init__(self) -> None:
        self._shown = 0.0
        self._live = sys.stderr.isatty()

    def step(self, line: dict[str, Any]) -> None:
        if self._live and time.monotonic() - self._shown > 0.5:
            self._shown = time.monotonic()
            sys.stderr.write("\r\x1b[K" + describe(line))
            sys.stderr.flush()

    def epoch(self, line: dict[str, Any]) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")
        _output.note(describe(line))
        if "remark" in line:
            _output.note(line["remark"])


def describe(line: dict[str, Any]) -> str:
    """One log line for people."""
    parts = [f"epoch {line['epoch'] + 1}"]
    for key, label, form in (
        ("step", "step", "d"),
        ("task", "loss", ".4f"),
        ("L_L", "L_L", ".3f"),
        ("L_S", "L_S", ".3f"),
        ("spatial", "spatial", ".3f"),
        ("rate", "rate", ".3f"),
        ("masked", "silent pairs", ".1%"),
        ("accuracy", "train", ".2%"),
        ("held_out_accuracy", "held out", ".2%"),
        ("held_out_robust_accuracy", "held out, attacked", ".2%"),
        ("images_per_second", "images/s", ".0f"),
    ):
        if key in line:
            parts.append(f"{label} {line[key]:{form}}")
    if "gradient_shares" in line:
        shares = (f"{term} {share:.0%}" for term, share in line["gradient_shares"].items())
        parts.append(f"gradient ({', '.join(shares)})")
    if "seconds_left" in line:
        parts.append(f"{line['seconds_left'] / 60:.1f} min left")
    return "  ".join(parts)
