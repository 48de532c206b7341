"""Engines that write: what they serve, how they fail, and how work is dealt to them."""
