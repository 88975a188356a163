"""Formats that models are exported to, one per file, and what a format is made of."""

from tdsnn.exporting.formats._base import FORMATS, Exported, Exporter, Metadata
from tdsnn.exporting.program import Program

__all__ = ["FORMATS", "Exported", "Exporter", "Metadata", "Program"]
