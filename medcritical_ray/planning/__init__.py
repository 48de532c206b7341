"""What a run needs of machines, and whether they have it."""
