"""Nothing is logged as an error: what a cluster is made for surviving is none, so whatever is logged so is a bug."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["listening"]


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info is not None and record.exc_info[1] is not None:
            text = f"{text}: {record.exc_info[1]!r}"
        self.heard.append(f"logged by {record.name}: {text}")


@contextmanager
def listening() -> Iterator[list[str]]:
    """Hear every error that is logged inside the block, and keep it from being printed."""
    listener, root = _Listener(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = [listener]
    root.setLevel(logging.ERROR)
    try:
        yield listener.heard
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
