"""The ``tdsnn-zoo`` command. Each module of this folder without an underscore is one command.

A command module exposes either ``command`` (a function) or ``app`` (a Typer group of sub-commands) and
imports torch only inside its body, so that ``list``, ``info`` and ``--help`` stay fast. Even typer is
imported inside ``main``, so that Ctrl-C is answered from the first moment on.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tdsnn import __version__
from tdsnn.errors import TdsnnError
from tdsnn.kernels.memory import keep_freed_memory

if TYPE_CHECKING:
    import typer


_VERSION = "Show which version this is."


def build_app(word: str | None = None) -> typer.Typer:
    """The command line, one entry for each command module found.

    Args:
        word: first word typed. If it names a command, only that one is imported: start-up time is felt.
    """
    import typer

    app = typer.Typer(
        name="tdsnn-zoo",
        help="Model zoo and benchmark suite for topographic deep spiking neural networks.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode="rich",
    )

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", callback=_show_version, is_eager=True, help=_VERSION
        ),
    ) -> None:
        """Options of no command."""

    found = [info.name for info in pkgutil.iter_modules([str(Path(__file__).parent)])]
    names = [name for name in found if not name.startswith("_") and name != "main"]
    for name in [word] if word in names else names:
        module = importlib.import_module(f"tdsnn.cli.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name=name)(module.command)
    return app


def _show_version(asked: bool) -> None:
    if asked:
        from tdsnn.cli import _output

        _output.console().print(f"tdsnn-zoo {__version__}")
        sys.exit()


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the code of the outcome."""
    words = sys.argv[1:] if arguments is None else arguments
    # The process is ours alone, and ends with the command.
    keep_freed_memory()
    try:
        build_app(words[0] if words else None)(args=arguments)
    except TdsnnError as error:
        from tdsnn.cli import _output

        _output.fail(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        # What shows messages is perhaps what was being imported.
        sys.stderr.write("Stopped.\n")
        sys.exit(130)
