"""Segment 1: what good means. Metrics, the value of a decision, and the gate that holds the targets."""
