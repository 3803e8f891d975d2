"""A part of segment 2: people label rows, and what they say becomes labels that are worth something."""
