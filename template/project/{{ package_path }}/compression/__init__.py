"""A part of segment 4: a smaller, quicker copy of the model."""
