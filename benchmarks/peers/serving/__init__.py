"""Programs that serve the same two models in other frameworks, each in an environment of its own."""
