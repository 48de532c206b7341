"""What a person or `ray job submit` runs: `medcritical <command>` or `python -m jobs.<name>`.

A file here is a command, but for `cli`, which starts them; what they are made of lies in folders.
"""
