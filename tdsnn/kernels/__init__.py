"""Operators that decide the speed: compiled for the CPU at first use, each with an eager equivalent."""
