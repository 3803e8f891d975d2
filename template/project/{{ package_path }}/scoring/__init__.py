"""The machinery of the models in use: their loader, files scored at once, labels taken back."""
