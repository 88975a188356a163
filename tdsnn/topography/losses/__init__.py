"""Spatial losses, one per file; a manifest chooses one by name."""
