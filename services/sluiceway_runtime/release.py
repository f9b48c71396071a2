"""Which release of Sluiceway runs here."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

__all__ = ["release"]


@cache
def release() -> str:
    """Its version. It is looked up once, since that reads files, and every server tells it to every orchestrator."""
    return version("sluiceway")
