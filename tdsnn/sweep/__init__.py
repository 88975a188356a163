"""Many trainings from one file: what to run, who runs it, and how far it is."""
