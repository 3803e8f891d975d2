"""Segment 5: what the model looked like when it was trained, to compare the future with."""
