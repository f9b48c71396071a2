"""The flight recorder of a server: what became of the latest requests, in bounded memory, for `sluiceway explain`.

One row for each call and each batch, written once, when it is over. Rows are plain tuples: of those the garbage
collector lets go after its first looks, where ten thousand objects would be looked at again and again.
"""

from sluiceway_runtime.recorder.batches import BatchLog, BatchRow, Part, Watched
from sluiceway_runtime.recorder.calls import CALL_KEY, CallLog, CallRow, current_call, fault_of
from sluiceway_runtime.recorder.recorder import Recorder
from sluiceway_runtime.recorder.ring import MOST_REQUESTS, Ring

__all__ = [
    "CALL_KEY",
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
