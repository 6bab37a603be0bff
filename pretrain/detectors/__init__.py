"""Small models that ship inside wheels and look at one picture at a time: text, nudity, safety; all through ONNX."""
