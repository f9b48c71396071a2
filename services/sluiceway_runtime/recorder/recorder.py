"""What one server remembers, and its name among others."""

from __future__ import annotations

import os

from sluiceway_runtime.recorder.batches import BatchLog
from sluiceway_runtime.recorder.calls import CallLog
from sluiceway_runtime.recorder.ring import MOST_REQUESTS

__all__ = ["Recorder"]


class Recorder:
    """The recorder of one server; everything of it belongs to the server's event loop.

    Args:
        most: requests that are remembered; 0 for none.
        instance: names the process; made up by default.

    Attributes:
        most, instance: as given.
        calls: that came.
        batches: of its worker pool, if it has one.
    """

    def __init__(self, most: int = MOST_REQUESTS, instance: str | None = None) -> None:
        self.most = most
        self.instance = instance or os.urandom(4).hex()
        self.calls = CallLog(most)
        self.batches = BatchLog(most)

    def __repr__(self) -> str:
        return f"<Recorder {self.instance} calls={len(self.calls)} batches={len(self.batches)}>"
