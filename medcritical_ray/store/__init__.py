"""A run in an object store, and its copies on machines."""
