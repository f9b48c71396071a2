"""Whether a stage is there, as the log tells it: once when work has to wait for it, and once when it comes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

__all__ = ["Presence"]

log = logging.getLogger(__name__)

# So long after a start a stage may be found without a word.
NOTICE_S = 1.0


class Presence:
    """Tells of one stage.

    Args:
        name: of the stage.
        target: where it is looked for.
        is_there: whether a replica takes work.
    """

    def __init__(self, name: str, target: str, is_there: Callable[[], bool]) -> None:
        self._name = name
        self._target = target
        self._is_there = is_there
        self._told: bool | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """It is looked for from now on."""
        self._timer = asyncio.get_running_loop().call_later(NOTICE_S, self._tell)

    def close(self) -> None:
        """It is looked for no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._told = self._is_there()

    def changed(self) -> None:
        """A replica came or went, perhaps the last one."""
        if self._told is not None or self._is_there():
            self._tell()

    def _tell(self) -> None:
        there = self._is_there()
        if there == self._told:
            return
        # Where all servers start together, some stage is always the last.
        level = logging.INFO if self._told is None else logging.WARNING
        self._told = there
        if there:
            log.info("%s is there: a replica at %s takes work", self._name, self._target)
        else:
            log.log(level, "%s is not there: no replica at %s takes work, and work waits", self._name, self._target)
