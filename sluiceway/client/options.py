"""How to process, and how to connect."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from sluiceway.errors import QueueFull, SluicewayError, Unavailable

__all__ = ["Options", "Priority", "RetryPolicy", "StepOptions", "Tls"]


class Priority(StrEnum):
    """How urgent a job is; higher classes go first, lower ones are slowed and never starved."""

    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How one step is to work; its fields mean what those of `Options` mean. A detection step takes the first five."""

    confidence: float | None = None
    iou: float | None = None
    classes: tuple[str, ...] = ()
    max_detections: int | None = None
    image_size: int | None = None
    characters: bool | None = None
    top_k: int | None = None
    words: bool | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """How to process; whatever is None is left to the server's configuration.

    Those of detection are for the steps that look at pages, those of recognition for every step that reads.

    Attributes:
        confidence: least confidence of a region, (0, 1].
        iou: overlap above which the weaker of two regions is dropped, (0, 1].
        classes: names of the classes to keep; empty leaves that to the server.
        max_detections: at most this many regions, the most confident ones.
        image_size: longer side of the detector's input in pixels, one of those that the server names.
        characters: also give each character's confidence.
        top_k: how many classes a classifier names.
        words: also say where each word of a text lies.
        priority: how urgent it is.
        return_images: send fetched images back, for drawing.
        detect_only: find regions, read nothing, and call nothing with what was read.
        steps: for single steps, by name; these win over the others.
    """

    confidence: float | None = None
    iou: float | None = None
    classes: tuple[str, ...] = ()
    max_detections: int | None = None
    image_size: int | None = None
    characters: bool | None = None
    top_k: int | None = None
    priority: Priority = Priority.NORMAL
    return_images: bool = False
    detect_only: bool = False
    steps: Mapping[str, StepOptions] = field(default_factory=dict)
    words: bool | None = None


@dataclass(frozen=True, slots=True)
class Tls:
    """An encrypted connection.

    Attributes:
        ca: PEM file of the authorities to trust; None trusts the system's.
        certificate: PEM file of this client's certificate, where the server asks for one.
        key: PEM file of its private key.
        server_name: name that the server's certificate must carry, if it is not the address.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again: only what was not begun or can be repeated, never against the server's word.

    `QueueFull` waits as long as the server asked; `Unavailable` waits twice as long each time, with jitter, so that
    many clients do not come back together. Nothing else is tried again, and never past the deadline.

    Attributes:
        attempts: tries in all; 1 never tries again.
        first_delay_s: before the second try.
        max_delay_s: longest wait between two tries, unless the server asks for more.
    """

    attempts: int = 5
    first_delay_s: float = 0.1
    max_delay_s: float = 5.0
    jitter: random.Random = field(default_factory=random.Random, repr=False, compare=False)

    def delay_s(self, error: SluicewayError, failures: int, remaining_s: float | None) -> float | None:
        """Say how long to wait before the next try.

        Args:
            error: what the last try ended with.
            failures: tries that failed so far, at least 1.
            remaining_s: time left for the whole call; None if it has no deadline.

        Returns:
            Seconds, or None to give up.
        """
        if failures >= self.attempts or not isinstance(error, QueueFull | Unavailable):
            return None
        if isinstance(error, QueueFull) and error.retry_after_s is None:
            # Without a time the server does not want it back: the message is too large, or a proxy's quota is used up.
            return None
        # No power of two beyond what a float holds: whoever never gives up gets there.
        doubled = self.first_delay_s * 2 ** min(failures - 1, 100)
        backoff = min(doubled, self.max_delay_s) * self.jitter.uniform(0.5, 1.0)
        asked = error.retry_after_s or 0.0
        delay = max(backoff, asked * self.jitter.uniform(1.0, 1.2))
        return None if remaining_s is not None and delay >= remaining_s else delay
