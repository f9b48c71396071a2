"""How an image is shown to a model: in one of its shapes, letterboxed, as one input or as parts that overlap."""
