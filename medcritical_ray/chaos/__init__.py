"""Runs under random kills: which kills there are, when a run has recovered from one, and what of it was lost."""
