"""Operators that decide the speed: compiled at first use, each with an eager equivalent."""
