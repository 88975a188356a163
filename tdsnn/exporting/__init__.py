"""Models as files of other formats, and the proof that these answer the same."""
