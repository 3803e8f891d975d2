"""One folder a segment of the design, in the order in which data flows; each folder has its commands in `commands.py`."""
