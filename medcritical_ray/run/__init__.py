"""A run on disk: what it is, how far it is, its policies and its rows."""
