"""A part that looks closer: learning curves, one row traced, the model's own speed."""
