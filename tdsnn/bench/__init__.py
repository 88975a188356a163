"""Measuring models, beside their twins; ``tdsnn.bench(...)`` is :func:`tdsnn.bench.api.bench`."""

from tdsnn.callable import make_callable

make_callable(__name__, "tdsnn.bench.api")
