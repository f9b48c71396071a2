"""How a command that waits ends: by a signal, in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

__all__ = ["stop_on_signals"]


def stop_on_signals(kill: Callable[[], None] | None = None) -> None:
    """Let SIGINT and SIGTERM cancel this task; a second one calls `kill`, which ends what does not stop by itself."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    asked = False

    def stop() -> None:
        nonlocal asked
        if asked and kill:
            # Without cancelling again: that would end the stopping itself and leave servers behind.
            kill()
        else:
            task.cancel()
        asked = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
