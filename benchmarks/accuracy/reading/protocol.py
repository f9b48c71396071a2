"""The reader's side: files come as lines of JSON, what was read goes back as lines of JSON. Needs no package.

A request is `{"path": ..., "again": ...}`; a file is looked at again for its CPU time alone, for text
only. The answer is `{"lines": [...], "words": [[text, [x0, y0, x1, y1]], ...], "notices": [...], "cpu_s": ...}`, or
`{"error": ..., "cpu_s": ...}`. CPU time is that of the reader and all its processes while it read.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["cpu_s", "serve"]

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s() -> float:
    """CPU time of this process and of all below it so far."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(fields[1])
            used[int(entry.name)] = (int(fields[11]) + int(fields[12])) / _TICKS
    times = os.times()
    total = times.user + times.system
    for pid, seconds in used.items():
        above = parents[pid]
        while above not in (0, 1, os.getpid()):
            above = parents.get(above, 0)
        total += seconds if above == os.getpid() else 0
    return total


def serve(read: Callable[[str, bool], dict[str, Any]]) -> None:
    """Answer until the input ends.

    Args:
        read: of a path, and whether it is looked at again.
    """
    # What libraries print must not come between answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        begun = cpu_s()
        try:
            asked = json.loads(line)
            answer = read(asked["path"], asked["again"])
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer | {"cpu_s": cpu_s() - begun}), file=answers, flush=True)
