"""What a client asks for, and its account of everything that it hears."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sluiceway_orchestrator.testing.cluster import SourceEvents
from sluiceway_runtime.priority import Priority

from sluiceway_simulation.stages.pictures import Picture

__all__ = ["Ask", "Heard"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One job.

    Attributes:
        source_bytes: of each picture's file.
        timeout_s: of the call.
        pause_s: between two events that the client reads.
        leave_after_s: when the client gives up; None if it stays.
        with_size: whether the call says its size and priority, so that it is admitted before it is read.
    """

    job_id: str
    pictures: tuple[Picture, ...]
    priority: Priority = Priority.NORMAL
    timeout_s: float = 10.0
    pipeline: str = ""
    source_bytes: int = 2000
    pause_s: float = 0.0
    leave_after_s: float | None = None
    with_size: bool = True


@dataclass(slots=True)
class Heard:
    """What came of a job.

    Attributes:
        sources: by id, what was said of each.
        reason: of the call's error; empty for a call that ended well, `left` where its client did.
        faults: what broke the contract.
        streamed: whether it was a job of a stream.
        was_cancelled: whether its client asked for its end.
    """

    ask: Ask
    asked_s: float
    sources: dict[str, SourceEvents] = field(default_factory=dict)
    first_s: float | None = None
    ended_s: float = 0.0
    reason: str = ""
    job_done: tuple[int, int] | None = None
    faults: list[str] = field(default_factory=list)
    streamed: bool = False
    was_cancelled: bool = False

    @property
    def took_s(self) -> float:
        """From the call to its end."""
        return self.ended_s - self.asked_s

    @property
    def succeeded(self) -> bool:
        """Whether every source was done."""
        return not self.reason and all(source.done is not None for source in self.sources.values())

    def failures(self) -> Mapping[str, str]:
        """Reasons of the sources that failed."""
        return {name: source.error.reason for name, source in self.sources.items() if source.error is not None}

    def texts(self) -> list[str]:
        """Everything that was read."""
        return [text for source in self.sources.values() for text in source.texts.elements()]

    def take(self, response: Any) -> None:
        """Take one event down."""
        kind = response.WhichOneof("event")
        if self.job_done is not None:
            self.faults.append(f"{kind} came after job_done")
        if kind == "job_done":
            self.job_done = response.job_done.succeeded, response.job_done.failed
            return
        try:
            self.sources.setdefault(response.source_id, SourceEvents()).add(response)
        except AssertionError as error:
            self.faults.append(f"source {response.source_id}: {error}")
