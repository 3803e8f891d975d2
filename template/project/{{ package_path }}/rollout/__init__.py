"""A part of segment 4: a second model beside the one in production, its share, and the verdict on both."""
