"""What one server remembers, and its name among others."""

from __future__ import annotations

import os

from sluiceway_runtime.recorder.batches import BatchLog
from sluiceway_runtime.recorder.calls import CallLog

__all__ = ["Recorder"]


class Recorder:
    """The recorder of one server; everything of it belongs to the server's event loop.

    Attributes:
        instance: names the process; made up as it starts.
        calls: that came.
        batches: of its worker pool, if it has one.
    """

    def __init__(self, instance: str | None = None) -> None:
        self.instance = instance or os.urandom(4).hex()
        self.calls = CallLog()
        self.batches = BatchLog()

    def __repr__(self) -> str:
        return f"<Recorder {self.instance} calls={len(self.calls)} batches={len(self.batches)}>"
