"""A part of segment 4: a service that answers one row or many over HTTP, and logs what it answers."""
