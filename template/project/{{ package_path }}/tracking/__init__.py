"""A part of segment 4: runs and models in a tracker and its registry, and all that was made as a catalogue's entries."""
