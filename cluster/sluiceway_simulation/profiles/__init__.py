"""What was measured of a pipeline's stages on some machine, as a file, and the simulated cluster that is made of it."""
