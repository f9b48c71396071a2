"""What a program that serves is told: one JSON object in PEER_SETTINGS, as frameworks start processes of their own."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Settings", "reader_of", "settings", "take_core"]

VARIABLE = "PEER_SETTINGS"


@dataclass(frozen=True)
class Settings:
    """How to serve.

    Attributes:
        port: of HTTP, on the loopback interface.
        workers: processes that compute.
        engine: `ours` (engine.py), `documented` or `ultralytics` (documented.py), `rapidocr` or `turboocr` (ocr.py).
        detector: name in the registry, or for `documented` a file.
        recogniser: likewise.
        device: of the recogniser.
        queue: requests that may wait, where the framework has such a bound; 0 leaves it as it comes.
        pinned: whether each worker has a core of its own.
        locks: a folder for take_core.
        files: further files, by what they are.
    """

    port: int
    workers: int
    engine: str
    detector: str = ""
    recogniser: str = ""
    device: str = "cpu"
    queue: int = 0
    pinned: bool = True
    locks: str = ""
    files: dict[str, str] | None = None

    def variables(self) -> dict[str, str]:
        """For the environment of the program."""
        return {VARIABLE: json.dumps(asdict(self))}


def settings() -> Settings:
    """What this program was told."""
    return Settings(**json.loads(os.environ[VARIABLE]))


def take_core(locks: Path) -> Any:
    """Pin this thread and those that it starts to a core that no other worker has; the lock ends with the process.

    More workers than cores share them evenly.
    """
    cores = sorted(os.sched_getaffinity(0))
    for place in range(16 * len(cores)):
        held = (locks / f"core-{place}").open("w")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.close()
            continue
        os.sched_setaffinity(0, {cores[place % len(cores)]})
        return held
    raise RuntimeError("more workers than places")


_held: list[Any] = []


def reader_of(told: Settings) -> Callable[[bytes], list[str]]:
    """What a worker calls: from an image file to what stands in it. Pins the worker first, where it is to be pinned."""
    if told.pinned:
        _held.append(take_core(Path(told.locks)))
    match told.engine:
        case "ours":
            from engine import Engine, Models

            return Engine(Models(told.detector, told.recogniser, told.device, told.workers))
        case "documented" | "ultralytics":
            from documented import Documented

            return Documented(told)
        case _:
            from ocr import engine_of

            return engine_of(told)
