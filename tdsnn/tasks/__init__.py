"""Tasks: what networks learn and how their answers are scored, one per file."""

from tdsnn.tasks._base import TASKS, Task

__all__ = ["TASKS", "Task"]
