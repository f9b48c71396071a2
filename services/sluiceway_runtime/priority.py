"""Priority classes of items."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Priority"]


class Priority(IntEnum):
    """Smaller goes first. Waiting items move up a class now and then, so that none waits for ever."""

    INTERACTIVE = 0
    NORMAL = 1
    BULK = 2
