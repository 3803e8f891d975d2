"""A part: a second model beside the one in production, its share, and the verdict on both."""
