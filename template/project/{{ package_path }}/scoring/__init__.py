"""Machinery of segment 4, the models in use: their loader, files scored at once, labels taken back."""
