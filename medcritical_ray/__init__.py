"""Self-play for small medical language models: stage 1 from a teacher, stage 2 from their own corrected mistakes."""

__version__ = "0.1.0"
