"""A part of segment 4 that looks closer: learning curves, one row traced, the model's own speed."""
