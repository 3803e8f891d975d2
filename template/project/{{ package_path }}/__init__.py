"""One folder a segment of the design, in the order in which data flows; `__main__` is the table of contents."""
