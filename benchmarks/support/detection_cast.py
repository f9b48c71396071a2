"""Who takes part in the detection benchmark: bare processes, servers, the naive variant. Starts them, lets them run."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contestant import Contestant
from sluiceway_runtime.cores import thread_environment
from stage_process import environment

__all__ = ["Bare", "Run", "Subject", "bare_processes", "can_import_torch", "merged", "naive_processes"]

SUPPORT = Path(__file__).parent
LOAD_TIMEOUT_S = 120.0
# What a naive user does not set.
CAPS = (*thread_environment(1), "KMP_AFFINITY", "GOMP_CPU_AFFINITY", "OMP_PROC_BIND")
# A naive image may take this long while processes fight over the cores.
ANSWER_TIMEOUT_S = 180.0

Run = dict[str, Any]
"""`per_s`, `took_ms` of every image, and what else a contestant tells."""


@dataclass(frozen=True)
class Subject:
    """What everybody computes.

    Attributes:
        weights: ONNX file.
        image: the file that is sent.
        cores: of this machine, to be used by all in turn.
        folder: for what has to lie somewhere meanwhile.
        backend: which computes.
        precision: arithmetic, as the server chose it.
        shape: height and width of the input that the image is brought to.
    """

    weights: Path
    image: Path
    cores: tuple[int, ...]
    folder: Path
    backend: str = ""
    precision: str = ""
    shape: tuple[int, int] = (0, 0)

    def settings(self, **more: object) -> dict[str, object]:
        """A server's."""
        chosen = {"backend": self.backend, "precision": self.precision} if self.precision else {}
        return {"model": str(self.weights), **chosen, **more}

    @property
    def one_shape(self) -> list[str]:
        """As a server's setting `shapes`."""
        return [f"{self.shape[0]}x{self.shape[1]}"]


class Bare:
    """Processes without a server that start at the same moment."""

    def __init__(self, processes: Sequence[Contestant]) -> None:
        self._processes = processes

    def one(self, number: int) -> Run:
        """One image in one of them."""
        return Bare([self._processes[number]]).run(0)

    def run(self, seconds: float) -> Run:
        """Let all of them run at once."""
        chosen = self._processes
        for process in chosen:
            process.begin(seconds)
        return merged([process.end(seconds + ANSWER_TIMEOUT_S) for process in chosen])


def merged(runs: Sequence[Run]) -> Run:
    """What several did at the same time, as one."""
    took_ms = [took for run in runs for took in run["took_ms"]]
    return runs[0] | {"per_s": sum(run["per_s"] for run in runs), "took_ms": took_ms}


@contextmanager
def bare_processes(
    subject: Subject, workers: Sequence[Mapping[str, Any]], *, forward_shape: tuple[int, int] | None = None
) -> Iterator[Bare]:
    """One bare process for each worker of a server, with its cores and threads.

    Args:
        subject: what to compute.
        workers: each with `cores` and `threads`.
        forward_shape: measure the model alone, at this input.
    """
    with ExitStack() as stack:
        processes = []
        for worker in workers:
            settings = {
                "weights": str(subject.weights),
                "image": str(subject.image),
                "backend": subject.backend,
                "precision": subject.precision,
                "shapes": [forward_shape or subject.shape],
                "forward_only": forward_shape is not None,
                "cores": worker["cores"],
                "threads": worker["threads"],
            }
            command = [sys.executable, str(SUPPORT / "bare_loop.py"), json.dumps(settings)]
            variables = environment(subject.folder) | thread_environment(worker["threads"])
            processes.append(stack.enter_context(Contestant(command, variables, start_timeout_s=LOAD_TIMEOUT_S)))
        for process in processes:
            process.wait_ready()
        yield Bare(processes)


@contextmanager
def naive_processes(subject: Subject, python: str, count: int) -> Iterator[Bare]:
    """Processes of the naive variant, with the library's own number of threads on all cores.

    They load one after the other: loading at once, they would take minutes.
    """
    variables = {name: value for name, value in environment(subject.folder).items() if name not in CAPS}
    command = [python, str(SUPPORT / "naive_loop.py"), str(subject.weights), *map(str, subject.shape)]
    with ExitStack() as stack:
        processes = []
        for _ in range(count):
            child = stack.enter_context(Contestant(command, variables, start_timeout_s=LOAD_TIMEOUT_S))
            processes.append(child.wait_ready())
        yield Bare(processes)


def can_import_torch(python: str) -> bool:
    """Whether this Python can run the naive variant."""
    with contextlib.suppress(OSError):
        done = subprocess.run([python, "-c", "import torch, onnx, numpy"], capture_output=True, check=False)
        return done.returncode == 0
    return False
