"""The web page for people: its files, and how they are served."""
