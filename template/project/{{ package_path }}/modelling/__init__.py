"""Segment 4: baselines and candidates, the choice between them, its evaluation and its export."""
