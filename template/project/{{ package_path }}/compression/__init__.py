"""A part: a smaller, quicker copy of the model."""
