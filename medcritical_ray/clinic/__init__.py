"""The clinic: a small world of real conditions and treatments, simplified, in which every part of the method runs.

It is a demonstration and a laboratory. Nothing in it is medical advice.
"""
