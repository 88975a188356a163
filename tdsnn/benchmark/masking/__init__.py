"""Gradient masking: what the measured cells show of it, and tests that look for it in the model itself."""

from tdsnn.benchmark.masking._base import Finding
from tdsnn.benchmark.masking.cells import Sign, caveat, signs
from tdsnn.benchmark.masking.report import masking_report

__all__ = ["Finding", "Sign", "caveat", "masking_report", "signs"]
