"""What runs in a worker process: pixels in, regions and crops out."""
