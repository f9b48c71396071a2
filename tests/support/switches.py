"""How often processes wake up: the voluntary context switches of their threads, as the kernel counts them.

A thread switches voluntarily when it has nothing to do and waits, so each of these is a wake-up. Neighbours that take
the cores away do not change the figure: what is taken from a thread counts as an involuntary switch.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path

__all__ = ["switches", "switches_of"]

VOLUNTARY = "voluntary_ctxt_switches:"


def switches_of(pid: int) -> Counter[str]:
    """The switches of a process since it began, by thread: its name, and `main` for the first one.

    Threads of one name count together; what a thread did that has ended is gone.
    """
    found: Counter[str] = Counter()
    for task in Path(f"/proc/{pid}/task").iterdir():
        # It may end while it is looked at.
        with suppress(FileNotFoundError, ProcessLookupError):
            name = "main" if task.name == str(pid) else (task / "comm").read_text(encoding="utf-8").strip()
            lines = (task / "status").read_text(encoding="utf-8").splitlines()
            found[name] += next(int(line.split()[1]) for line in lines if line.startswith(VOLUNTARY))
    return found


def switches(pids: dict[str, int]) -> dict[str, Counter[str]]:
    """The same of several processes, by what they are called here."""
    return {name: switches_of(pid) for name, pid in pids.items()}
