"""From a manifest to a trained network; ``tdsnn.train`` is :func:`tdsnn.training.session.train`."""
