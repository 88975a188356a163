"""The benchmark: gates, cells, runner."""
