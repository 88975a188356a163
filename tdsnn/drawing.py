"""Figures on their way to files: equal figures give equal bytes, without a display and a user's own style."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tdsnn.errors import UsageError
from tdsnn.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

__all__ = ["COLOURS", "CONTROL", "FORMATS", "drawing", "require_format", "save_figure", "save_in_all_formats"]

FORMATS = ("png", "svg")
COLOURS, CONTROL = ("#c0392b", "#2c6fbb", "#2a9d5c", "#8e44ad"), "#8a8a8a"
"""Of what is compared, in turn, and of a control."""
_DPI = 150


@contextmanager
def drawing(salt: str) -> Iterator[None]:
    """Draw and save inside the block; a user's ``matplotlibrc`` must not change official figures.

    Args:
        salt: what names inside an SVG are made from.
    """
    import matplotlib as mpl
    from matplotlib import style

    with style.context("default"), mpl.rc_context({"svg.hashsalt": salt}):
        yield


def save_figure(canvas: Canvas, path: Path) -> None:
    """Write a figure as its file's ending says, inside :func:`drawing`.

    Raises:
        TdsnnError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if not isinstance(canvas.canvas, FigureCanvasAgg):
        FigureCanvasAgg(canvas)
    kind = path.suffix.removeprefix(".")
    with atomic(path) as temporary:
        canvas.savefig(temporary, format=kind, dpi=_DPI, metadata={"Date": None} if kind == "svg" else None)


def save_in_all_formats(canvas: Canvas, stem: Path) -> Iterator[Path]:
    """Write a figure once for each of :data:`FORMATS`, inside :func:`drawing`, and give the files."""
    for kind in FORMATS:
        path = stem.with_name(f"{stem.name}.{kind}")
        save_figure(canvas, path)
        # Laid out once: that takes longer than the drawing.
        canvas.set_layout_engine("none")
        yield path


def require_format(path: Path) -> None:
    """Refuse a file of another kind before anything is computed.

    Raises:
        UsageError: its name ends neither in ``.png`` nor in ``.svg``.
    """
    if path.suffix.removeprefix(".") not in FORMATS:
        raise UsageError(
            f"A figure is a .png or .svg file, not '{path}'.", hint="Let its name end in .png or .svg."
        )
