"""A policy of a run as a directory that transformers, PEFT and vLLM load, with a model card that says what it is."""
