"""The recognition stage: crops in; their text, class or embedding out."""
