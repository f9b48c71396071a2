"""How urgent a job is."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Priority"]


class Priority(IntEnum):
    """Lower numbers go first; lower classes age, so they are slowed and never starved."""

    INTERACTIVE = 0
    NORMAL = 1
    BULK = 2
