"""Measuring models beside their twins; ``tdsnn.bench`` is :func:`tdsnn.benchmark.api.bench`."""
