"""The flight recorder of a server: what became of the latest requests, in bounded memory, for `sluiceway explain`.

One row for each call and each batch, written once, when it is over.
"""

from sluiceway_runtime.recorder.batches import BatchLog, BatchRow, Part, Watched
from sluiceway_runtime.recorder.calls import CallLog, CallRow, current_call, fault_of
from sluiceway_runtime.recorder.recorder import Recorder
from sluiceway_runtime.recorder.ring import MOST_REQUESTS, Ring

__all__ = [
    "MOST_REQUESTS",
    "BatchLog",
    "BatchRow",
    "CallLog",
    "CallRow",
    "Part",
    "Recorder",
    "Ring",
    "Watched",
    "current_call",
    "fault_of",
]
