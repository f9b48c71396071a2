"""Compiling in processes of their own: several at a time, and whatever a compiler does to a process ends with it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sluiceway_runtime.cores import read_cpu_facts
from sluiceway_runtime.gpu.recipe import Recipe
from sluiceway_runtime.gpu.shapes import Shape

__all__ = ["Built", "build"]

# Measured: one compilation keeps about four cores busy, and more at a time than that only take turns.
CORES_EACH = 4
# Longer than any compilation seen, with the import of torch from a cold disk before it.
JOB_TIMEOUT_S = 900.0

# Told of each shape: the empty string when its file is there, else what went wrong in a line.
Built = Callable[[Shape, str], None]


def build(recipe: Recipe, device: str, wanted: Sequence[tuple[Shape, Path]], built: Built) -> None:
    """Compile shapes to files, and return when all are done or have failed.

    Args:
        recipe: of the module.
        device: that it is compiled for.
        wanted: shapes, and the file to write for each.
        built: called for each shape as it is done, in threads of their own.
    """
    jobs: queue.SimpleQueue[tuple[Shape, Path]] = queue.SimpleQueue()
    for job in wanted:
        jobs.put(job)
    count = min(len(wanted), max(1, _cores() // CORES_EACH))
    threads = [
        threading.Thread(target=_drive, args=(recipe, device, jobs, built), name=f"builder {number}")
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _cores() -> int:
    facts = read_cpu_facts()
    allowed = len(facts.allowed)
    return allowed if facts.quota_cpus is None else min(allowed, math.ceil(facts.quota_cpus))


def _drive(recipe: Recipe, device: str, jobs: queue.SimpleQueue[tuple[Shape, Path]], built: Built) -> None:
    """Keep one builder busy; a new one takes over when it dies."""
    process: subprocess.Popen[str] | None = None
    try:
        while True:
            try:
                shape, path = jobs.get_nowait()
            except queue.Empty:
                return
            if process is None:
                try:
                    process = _start()
                except OSError as fault:  # no memory is left for a process; the next graph may find some
                    built(shape, f"no builder can be started: {fault}")
                    continue
            error = _ask(process, {"recipe": recipe.to_json(), "device": device, **_job(shape, path)})
            if error is None:
                error = f"the builder ended with code {_end(process)}"
                process = None
            built(shape, error)
    finally:
        if process is not None:
            _end(process)


def _start() -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TORCHINDUCTOR_COMPILE_THREADS": str(CORES_EACH),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "sluiceway_runtime.gpu.builder_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def _end(process: subprocess.Popen[str]) -> int:
    """Close its pipes, which ends it if it has not ended, and return its code."""
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    return process.wait()


def _ask(process: subprocess.Popen[str], job: Mapping[str, Any]) -> str | None:
    """Hand over a job; returns its fault, "" for none, or None if the process is gone."""
    assert process.stdin is not None
    assert process.stdout is not None
    timer = threading.Timer(JOB_TIMEOUT_S, process.kill)
    timer.start()
    try:
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except OSError:
        return None
    finally:
        timer.cancel()
    # One that was killed may leave half a line.
    return str(json.loads(line)["error"]) if line.endswith("\n") else None


def _job(shape: Shape, path: Path) -> dict[str, Any]:
    inputs = [[spec.dtype, list(spec.shape)] for spec in shape.inputs]
    return {"shape": shape.name, "inputs": inputs, "path": str(path)}
