"""Plug-ins for tdsnn-zoo in a package of their own; ``zoo`` is a folder for ``TDSNN_ZOO``."""
