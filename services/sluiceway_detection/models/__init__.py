"""What is known of a model before it computes: what its file says, and what is told beside it."""
