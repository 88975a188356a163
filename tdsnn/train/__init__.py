"""From a manifest to a trained network; ``tdsnn.train(...)`` is :func:`tdsnn.train.session.train`."""

from tdsnn.callable import make_callable

make_callable(__name__, "tdsnn.train.session")
