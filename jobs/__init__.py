"""What a person or `ray job submit` runs: `medcritical <command>` or `python -m jobs.<name>`."""
