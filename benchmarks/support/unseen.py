"""`python -m support.unseen blind MODULE …`: a server whose metrics and log do nothing; with `seeing` it is as ever.

The calls to what takes notes are left, which cost a twentieth of a microsecond each. Servers that are compared are
started by this alike, as what a process has loaded besides makes it slower by more than metrics do.
"""

from __future__ import annotations

import logging
import runpy
import sys
from typing import Any

from sluiceway_orchestrator.metrics.apis import ApiMetrics
from sluiceway_orchestrator.metrics.sources import SourceMetrics
from sluiceway_runtime.metrics.calls import CallMetrics
from sluiceway_runtime.metrics.http import HttpMetrics
from sluiceway_runtime.metrics.instruments import Histogram
from sluiceway_runtime.metrics.server import LoopLag
from sluiceway_runtime.metrics.waits import Waits

__all__ = ["OFF"]


def _nothing(*_: Any) -> None:
    """Take note of nothing."""


# By class and name of a method: what does nothing in its place.
OFF: tuple[tuple[type, str, Any], ...] = (
    (Histogram, "observe", _nothing),
    (CallMetrics, "observe", _nothing),
    (HttpMetrics, "observe", _nothing),
    (LoopLag, "observe", _nothing),
    (SourceMetrics, "ended", _nothing),
    (Waits, "none", _nothing),
    (ApiMetrics, "watched", lambda _self, _api, call: call),
)


def main() -> None:
    """Run a server."""
    if sys.argv.pop(1) == "blind":
        for owner, name, other in OFF:
            setattr(owner, name, other)
        logging.disable(logging.WARNING)
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
