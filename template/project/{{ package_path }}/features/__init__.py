"""Segment 3: which columns the model sees, and how they are prepared."""
