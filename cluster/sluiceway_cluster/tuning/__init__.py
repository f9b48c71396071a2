"""Measuring clusters that are started here, for `tune`."""
