"""The `sluiceway` command."""

from sluiceway.cli.app import main

__all__ = ["main"]
