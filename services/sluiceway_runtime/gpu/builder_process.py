"""The main program of a process that compiles: `python -m sluiceway_runtime.gpu.builder_process`.

It reads jobs from stdin, one JSON object a line, answers each with a line on stdout, and ends when its stdin does: also
when the worker that wanted the graphs is killed.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TextIO

import torch

from sluiceway_runtime.gpu import compiler
from sluiceway_runtime.gpu.recipe import Recipe
from sluiceway_runtime.gpu.shapes import ArraySpec, Shape

__all__ = ["main"]

log = logging.getLogger(__name__)

# The last line of a trace.
CAUSE = re.compile(r"(\w+\.)*\w+(Error|Exception): ")


def main() -> NoReturn:
    """Compile what is asked for, until nobody asks any more."""
    logging.basicConfig(level=logging.WARNING)
    # Answers keep the pipe to themselves; what libraries print goes to the log.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin, lines), daemon=True).start()
    while True:
        answers.write(json.dumps({"error": _compile(json.loads(lines.get()))}) + "\n")
        answers.flush()


def _listen(stdin: TextIO, lines: queue.SimpleQueue[str]) -> None:
    """Pass jobs on; the end of the pipe is the end of the process, in the middle of a compilation too."""
    for line in stdin:
        lines.put(line)
    os._exit(0)


def _compile(job: Mapping[str, Any]) -> str:
    try:
        device = torch.device(job["device"])
        if device.type == "cuda":
            torch.cuda.set_device(device)
        shape = Shape(job["shape"], tuple(ArraySpec(dtype, tuple(sizes)) for dtype, sizes in job["inputs"]))
        # As the worker does: what is compiled in another mode is another thing to the compiler's caches.
        with torch.inference_mode():
            module = Recipe.from_json(job["recipe"]).make(device)(shape)
            compiler.compile_to(Path(job["path"]), module, shape, device)
    except Exception as error:  # compilers raise whatever they run into; the parent goes on without this graph
        log.debug("compiling failed", exc_info=True)
        return _in_a_line(error)
    return ""


def _in_a_line(error: Exception) -> str:
    """What went wrong. A compiler that failed in a process of its own puts the cause at the end of a trace."""
    lines = str(error).strip().splitlines() or ["no message"]
    causes = [line for line in lines[1:] if CAUSE.match(line)]
    return f"{type(error).__name__}: {' '.join([lines[0], *causes[-1:]])}"


if __name__ == "__main__":
    main()
