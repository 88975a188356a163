"""Attacks and noise, one per file."""
