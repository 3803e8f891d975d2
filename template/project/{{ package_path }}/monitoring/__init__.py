"""A part of segment 5: what the model looked like in training, what later data looks like, alarms, retraining."""
