"""Training recipes; nothing here is imported by the services."""
