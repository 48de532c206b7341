"""Who teaches in stage 1, and what the student learns from."""
