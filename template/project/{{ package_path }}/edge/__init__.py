"""A part: a folder that scores with onnxruntime and numpy alone."""
