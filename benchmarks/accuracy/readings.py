"""All pictures read by all contestants, kept one by one, so that a run that was cut short goes on where it ended."""

from __future__ import annotations

import json
import os
import platform
import statistics
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.accuracy.contestants import CONTESTANTS, Reader, Settings
from benchmarks.accuracy.picture import Stored

__all__ = ["Reading", "kept", "machine", "mean_cpu_s", "read_all", "record", "recorded"]

# Of each class, so many pictures are read once more for their CPU time: at first sight of a shape engines also compile.
TIMED = 2


@dataclass(frozen=True)
class Reading:
    """What a contestant made of a picture.

    Attributes:
        lines: in its own order; none where it failed.
        words: (text, box) where it was asked for.
        notices: what it gave up, by reason.
        error: why it failed.
        cpu_s: at second sight, on this machine; None where it was looked at once, or elsewhere.
    """

    lines: tuple[str, ...] = ()
    words: tuple[tuple[str, tuple[float, float, float, float]], ...] = ()
    notices: tuple[str, ...] = ()
    error: str | None = None
    cpu_s: float | None = None


def read_all(
    name: str, pictures: Mapping[str, Sequence[Stored]], settings: Settings, work: Path, jobs: int = 1
) -> None:
    """Let one contestant read whatever it has not read yet, or not here as far as its CPU time is wanted.

    Args:
        name: of the contestant.
        pictures: by class.
        settings: of this machine.
        work: folder for what is kept. Each reading is, as it comes.
        jobs: how many of its processes read side by side. More than one have a core each.

    Raises:
        SystemExit: it ended, or does not answer.
    """
    contestant = CONTESTANTS[name]
    fingerprint = contestant.fingerprint(settings)
    folder = work / "readings" / name
    tasks = [
        _Task(kind, number, stored, timed=number < TIMED)
        for kind, found in pictures.items()
        for number, stored in enumerate(found)
        if not _current(_file(folder, kind, number), stored, fingerprint, timed=number < TIMED)
    ]
    if not tasks:
        return
    folder.mkdir(parents=True, exist_ok=True)
    command, where = contestant.command(settings, work), contestant.folder(settings)
    waiting, cores = _Shared(tasks), sorted(os.sched_getaffinity(0))
    jobs = min(jobs, len(tasks))

    def read(job: int) -> None:
        if jobs > 1:
            # Of this thread alone, and of the processes that it starts.
            os.sched_setaffinity(0, {cores[job % len(cores)]})
        with Reader(command, work / f"{name}.log", where) as reader:
            for task in waiting:
                answer = reader.read(task.stored.path)
                first = answer.pop("cpu_s")
                again = reader.read(task.stored.path, again=True)["cpu_s"] if task.timed else None
                record = {"digest": task.stored.digest, "fingerprint": fingerprint, "machine": machine()}
                record |= {"first_cpu_s": first, "cpu_s": again}
                text = json.dumps(record | answer, ensure_ascii=False)
                _file(folder, task.kind, task.number).write_text(text + "\n", encoding="utf-8")
                refused = f" refused: {answer['error']}" if answer.get("error") else ""
                print(f"{name}: {task.kind} {task.number}{refused}", flush=True)

    with ThreadPoolExecutor(jobs) as threads:
        for done in [threads.submit(read, job) for job in range(jobs)]:
            done.result()


class _Task(NamedTuple):
    """One picture to be read, and whether it is read once more for its CPU time."""

    kind: str
    number: int
    stored: Stored
    timed: bool


class _Shared(Iterator[_Task]):
    """Tasks that several threads take from."""

    def __init__(self, tasks: Iterable[_Task]) -> None:
        self._tasks, self._lock = iter(tasks), threading.Lock()

    def __next__(self) -> _Task:
        with self._lock:
            return next(self._tasks)


def kept(name: str, kind: str, pictures: Sequence[Stored], work: Path) -> list[Reading] | None:
    """What a contestant read in the pictures of a class; None where some are missing or were others then."""
    found = []
    for number, stored in enumerate(pictures):
        path = _file(work / "readings" / name, kind, number)
        if not path.exists():
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["digest"] != stored.digest:
            return None
        words = tuple((text, (box[0], box[1], box[2], box[3])) for text, box in record.get("words", ()))
        lines, notices = tuple(record.get("lines", ())), tuple(record.get("notices", ()))
        cpu_s = record["cpu_s"] if record.get("machine") == machine() else None
        found.append(Reading(lines, words, notices, record.get("error"), cpu_s))
    return found


def machine() -> str:
    """On which CPU times are measured: they can be compared with those of the same machine alone."""
    info = Path("/proc/cpuinfo")
    told = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in told if line.startswith("model name")), "")
    return f"{model or platform.machine()}, {os.cpu_count()} cores"


def record(name: str, kinds: Sequence[str], pictures: Mapping[str, Sequence[Stored]], work: Path, path: Path) -> None:
    """Write what a contestant read in some classes into a file of the repository."""
    table = {
        kind: [
            {"digest": stored.digest, "lines": item.lines} for stored, item in zip(pictures[kind], found, strict=True)
        ]
        for kind in kinds
        if kind in pictures and (found := kept(name, kind, pictures[kind], work)) is not None
    }
    path.write_text(json.dumps(table, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def recorded(kind: str, pictures: Sequence[Stored], path: Path) -> list[Reading] | None:
    """What `record` wrote of a class; None where there is nothing, or of other pictures."""
    table = json.loads(path.read_text(encoding="utf-8")).get(kind) if path.exists() else None
    if table is None or [item["digest"] for item in table] != [stored.digest for stored in pictures]:
        return None
    return [Reading(tuple(item["lines"])) for item in table]


def mean_cpu_s(readings: Sequence[Reading]) -> float | None:
    """CPU seconds an image, of those that were timed."""
    timed = [reading.cpu_s for reading in readings if reading.cpu_s is not None]
    return statistics.fmean(timed) if timed else None


def _file(folder: Path, kind: str, number: int) -> Path:
    return folder / f"{kind}-{number:03}.json"


def _current(path: Path, stored: Stored, fingerprint: str, *, timed: bool) -> bool:
    if not path.exists():
        return False
    record = json.loads(path.read_text(encoding="utf-8"))
    same = record["digest"] == stored.digest and record["fingerprint"] == fingerprint
    return bool(same and (not timed or (record.get("machine") == machine() and record["cpu_s"] is not None)))
