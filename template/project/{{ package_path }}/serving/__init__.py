"""Segment 4: the model behind a service, for one row and for many."""
