"""Cortical sheets, spatial losses and their analyses, for any PyTorch model."""
