"""Do the caps on threads hold? Found by looking, while a worker computes, at how many of its threads want a core.

What a library says of its own cap is no proof: some take the number and start more threads all the same, and user code
may start its own. So the states of all threads of the process are sampled during warm work. A thread that wants a core
is `R` whether it has one or waits for it, so neighbours that keep the machine busy change nothing; and threads that
take turns are never `R` at once, so handing work over is no fault.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sluiceway_runtime.cores.threads import apply_thread_caps
from sluiceway_runtime.errors import StartupError

__all__ = ["ThreadUse", "measure_threads", "verify_threads"]

TASKS = Path("/proc/self/task")
# Between two looks. Shorter than any image takes, longer than a look takes.
PAUSE_S = 0.002
# Looks that a verdict rests on, and the longest that work is repeated for them.
ENOUGH_SAMPLES = 40
MOST_S = 2.0
# Fewer say nothing: this work hardly computes.
LEAST_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class ThreadUse:
    """How many threads of this process wanted a core at once.

    Attributes:
        busy: in the middle (median) of the looks; None where too little could be seen.
        mean: the average of the looks.
        samples: number of looks.
        extra: names of the threads that were seen busy beside the calling one, most often seen first.
    """

    busy: int | None
    mean: float
    samples: int
    extra: tuple[str, ...]


def verify_threads(work: Callable[[], object], threads: int, *, worker: int) -> ThreadUse:
    """Run some work as warm-up, cap what it has loaded once more, and hold it to the cap.

    Args:
        work: one inference; called several times, for 0.1 s or so in all (at least twice, however long it takes).
        threads: allowed at once.
        worker: its number, for the message.

    Raises:
        StartupError: more threads were busy at once in more than half of the looks.
        Exception: whatever `work` raises.
    """
    # The first inference is where libraries load the rest of themselves and set their own number of threads.
    work()
    caps = apply_thread_caps(threads)
    use = measure_threads(work)
    if use.busy is not None and use.busy > threads:
        told = ", ".join(f"{name} {number}" for name, number in caps.items()) or "none that is known here"
        names = ", ".join(use.extra[:4])
        raise StartupError(
            f"worker {worker} keeps {use.busy} threads busy at once where {threads} may be, so workers would take the "
            f"cores from each other. Libraries with a cap: {told}; busy beside the main thread: {names}. "
            f"Cap what starts these threads, or grant them: threads_per_worker = {use.busy}"
        )
    return use


def measure_threads(work: Callable[[], object]) -> ThreadUse:
    """Look at the threads of this process while `work` is repeated."""
    looks: list[int] = []
    names: Counter[str] = Counter()
    over = threading.Event()
    own = threading.get_native_id()

    def look() -> None:
        me = threading.get_native_id()
        while not over.wait(PAUSE_S):
            busy = [(thread, name) for thread, name in _busy_threads() if thread != me]
            looks.append(len(busy))
            # Python's own threads share the name of the process before Python 3.14.
            known = {thread.native_id: thread.name for thread in threading.enumerate()}
            names.update(known.get(thread, name) for thread, name in busy if thread != own)

    sampler = threading.Thread(target=look, name="thread-check", daemon=True)
    sampler.start()
    end_s = time.monotonic() + MOST_S
    try:
        while True:
            work()
            if len(looks) >= ENOUGH_SAMPLES or time.monotonic() > end_s:
                break
    finally:
        over.set()
        sampler.join()
    if not looks:
        return ThreadUse(None, 0.0, 0, ())
    busy = int(statistics.median_low(looks)) if len(looks) >= LEAST_SAMPLES else None
    return ThreadUse(
        busy, round(statistics.fmean(looks), 2), len(looks), tuple(name for name, _ in names.most_common())
    )


def _busy_threads() -> list[tuple[int, str]]:
    """Threads that run or wait for a core. Those that end meanwhile are not there."""
    found = []
    for task in TASKS.iterdir():
        try:
            text = (task / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        # The name is in brackets and may hold any character.
        head, _, rest = text.rpartition(")")
        if rest.lstrip().startswith("R"):
            found.append((int(task.name), head.partition("(")[2]))
    return found
