"""Segment 2: from a source to labelled, split rows."""
