"""Run one batch in a worker and put what came of it into words. The process and its in-process twin share this."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from sluiceway_runtime.pool.handler import Handler, run_batch
from sluiceway_runtime.pool.messages import Raised, Result, Run

__all__ = ["describe", "execute", "resident_bytes"]

logger = logging.getLogger(__name__)

PAGE_BYTES = os.sysconf("SC_PAGESIZE")
STATM = Path("/proc/self/statm")


def execute(handler: Handler, run: Run) -> Result | Raised:
    """Compute a batch.

    `SystemExit` from a handler is a fault of the batch like any other: only the pool ends workers.
    """
    begun_s = time.perf_counter()
    try:
        results = run_batch(handler, run.batch)
    except (Exception, SystemExit) as error:
        logger.exception("the handler raised on a batch of %d", len(run.batch))
        return Raised(run.batch_id, describe(error))
    return Result(run.batch_id, results, (time.perf_counter() - begun_s) * 1000, resident_bytes())


def describe(error: BaseException) -> str:
    """One line about an exception."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(STATM.read_text(encoding="ascii").split()[1]) * PAGE_BYTES
