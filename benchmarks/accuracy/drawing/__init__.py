"""Drawn pictures, each a function of its class and its number."""
