"""APIs by name: what every kind has in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sluiceway_runtime.errors import ImageTooLarge, InvalidOption

from sluiceway.figures import ApiFigures
from sluiceway_orchestrator.fetch.caller import Call, DetectionChoice
from sluiceway_orchestrator.fetch.room import Estimate, Room
from sluiceway_orchestrator.job import Buffer

__all__ = ["Api", "Brought", "check_params", "within"]

MAX_PARAM = 8192
MAX_NAME, MAX_UNKNOWN = 64, 8


@dataclass(slots=True)
class Brought:
    """What a call brought; an image, empty if there is none, is counted in the room of the call."""

    image: Buffer = b""
    values: Mapping[str, Any] = field(default_factory=dict)
    detection: DetectionChoice | None = None


class Api(Protocol):
    """Something that a source, or a step, can call by name.

    Attributes:
        params: names of the parameters that a call has to give.
        brings_image: whether an answer may have an image.
        brings_values: whether an answer may have values.
        expected: how large the next image may be.
    """

    name: str
    params: tuple[str, ...]
    brings_image: bool
    brings_values: bool
    expected: Estimate

    async def start(self) -> None:
        """Prepare. Raises ConfigurationError."""

    async def close(self) -> None:
        """Release connections."""

    def use(self) -> ApiFigures:
        """How many calls there are now, and may be."""
        ...

    async def call(self, call: Call, room: Room) -> Brought:
        """Make a call; without `want_image` an image is neither fetched nor decoded.

        Args:
            call: what to call; its parameters are checked here.
            room: where the answer is counted. It waits for room only if the image is wanted.

        Raises:
            SluicewayError: there is no answer. Whoever made the room releases it.
        """
        ...


def check_params(declared: Sequence[str], given: Mapping[str, str]) -> None:
    """Raise InvalidOption unless exactly the declared parameters are given, each of a sensible length."""
    missing = sorted(set(declared) - set(given))
    unknown = sorted(set(given) - set(declared))
    if missing or unknown:
        # Of what a client made up, enough to find it by.
        named = (name[:MAX_NAME] for name in unknown[:MAX_UNKNOWN])
        faults = [*(f"missing {name}" for name in missing), *(f"unknown {name}" for name in named)]
        raise InvalidOption(f"api_call.params: {', '.join(faults)}")
    for name, value in given.items():
        if len(value) > MAX_PARAM:
            raise InvalidOption(f"api_call.params.{name}: longer than {MAX_PARAM} characters")


def within(image: Buffer, max_image_bytes: int) -> Buffer:
    """The image, unless it is larger than allowed."""
    if len(image) > max_image_bytes:
        raise ImageTooLarge("the image is larger than allowed", metadata={"max_image_bytes": str(max_image_bytes)})
    return image
