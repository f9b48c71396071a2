"""Finding the setting of one machine for a goal, from the smallest upward, in a model that was measured on it."""
