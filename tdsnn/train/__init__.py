"""Training: recipe, loop, exact resume."""
