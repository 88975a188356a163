"""Tasks: what networks learn and how their answers are scored, one per file."""
