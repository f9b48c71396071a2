"""The detection stage: an image in, regions out, and crops for the recogniser when they are asked for."""
