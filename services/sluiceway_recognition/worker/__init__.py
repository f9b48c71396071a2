"""What runs in a worker process: crops in, checked answers out."""
