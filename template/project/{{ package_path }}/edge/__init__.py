"""A part of segment 4: a folder that scores with onnxruntime and numpy alone."""
