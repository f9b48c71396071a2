"""What a user's own API caller looks like."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import aiohttp
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.images.scale import Scale, scale_of

from sluiceway_orchestrator.fetch.content import encodable

__all__ = ["Answer", "Call", "Caller", "DetectionChoice", "Region"]

MAX_CLASSES, MAX_DETECTIONS = 10_000, 10_000
LARGEST_SIDE, SIDE_STEP = 2**16, 32


@dataclass(frozen=True, slots=True)
class DetectionChoice:
    """Options for detection that an answer chooses; None leaves one as it is.

    Attributes:
        confidence: least confidence of a region, (0, 1].
        iou: overlap above which the weaker of two regions is dropped, (0, 1].
        classes: names of the classes to keep; empty keeps all.
        max_detections: at most this many regions, 1..10000.
        image_size: longer side of the model's input in pixels, a multiple of 32.
        scale: how large the image is shown: "auto", "fast", or a factor above 0, at most 4.

    Raises:
        ValueError: one is of another type, or out of range; with words for people.
    """

    confidence: float | None = None
    iou: float | None = None
    classes: Sequence[str] | None = None
    max_detections: int | None = None
    image_size: int | None = None
    scale: Scale | None = None

    def __post_init__(self) -> None:
        for name in ("confidence", "iou"):
            value = getattr(self, name)
            if value is not None and not (_is(value, int | float) and math.isfinite(value) and 0 < value <= 1):
                raise ValueError(f"{name}: must be a number above 0, at most 1")
        if self.classes is not None:
            given = self.classes
            if not (isinstance(given, list | tuple) and all(isinstance(name, str) and name for name in given)):
                raise ValueError("classes: must be a list of names")
            if len(given) > MAX_CLASSES:
                raise ValueError(f"classes: more than {MAX_CLASSES}")
            object.__setattr__(self, "classes", tuple(encodable(name) for name in given))
        most = self.max_detections
        if most is not None and not (_is(most, int) and 1 <= most <= MAX_DETECTIONS):
            raise ValueError(f"max_detections: must be a whole number from 1 to {MAX_DETECTIONS}")
        side = self.image_size
        if side is not None and not (_is(side, int) and 0 < side <= LARGEST_SIDE and side % SIDE_STEP == 0):
            raise ValueError(f"image_size: must be a whole number of pixels, a multiple of {SIDE_STEP}")
        if self.scale is not None:
            if not _is(self.scale, int | float | str):
                raise ValueError("scale: must be a number or a word")
            object.__setattr__(self, "scale", _scale(self.scale))

    def chosen(self) -> dict[str, Any]:
        """Those that are chosen, by name, as the contract has them."""
        found = {item.name: value for item in fields(self) if (value := getattr(self, item.name)) is not None}
        return found if self.scale is None else found | {"scale": str(self.scale)}

    def over(self, earlier: DetectionChoice | None) -> DetectionChoice:
        """This choice, and where it says nothing the earlier one."""
        if earlier is None:
            return self
        later = {item.name: getattr(self, item.name) for item in fields(self)}
        return DetectionChoice(
            **{name: getattr(earlier, name) if value is None else value for name, value in later.items()}
        )


def _scale(given: Scale) -> Scale:
    try:
        return scale_of(str(given))
    except ValueError as error:
        raise ValueError(f"scale: {error}") from None


def _is(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Region:
    """A region of a page, with what was said of it so far.

    Attributes:
        parent_id: the region that it was found in; None for those of the page itself.
        step: the detection step that found it.
        page: number of the page, from 0.
        class_name: what the detector calls it.
        confidence: (0, 1].
        box_xyxy_px: left, top, right, bottom, in pixels of the page.
        values: by step: `{"text": ..., "confidence": ...}`, `{"labels": [{"class_name": ..., "confidence": ...}]}` with
            the most probable class first, `{"embedding": [...]}`, what an API answered, or `{"error": {...}}`.
    """

    id: int
    parent_id: int | None
    step: str
    page: int
    class_name: str
    confidence: float
    box_xyxy_px: tuple[float, float, float, float]
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The first text that was read in it, or ""."""
        for value in self.values.values():
            if isinstance(value, Mapping) and isinstance(value.get("text"), str):
                return str(value["text"])
        return ""

    @property
    def label(self) -> str:
        """The most probable class of the first classifier, or ""."""
        for value in self.values.values():
            labels = value.get("labels") if isinstance(value, Mapping) else None
            # What an API answered may have a name in common with what a classifier says, and nothing else.
            if isinstance(labels, Sequence) and labels and isinstance(labels[0], Mapping):
                name = labels[0].get("class_name")
                if isinstance(name, str):
                    return name
        return ""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an API.

    Attributes:
        api: name of the API.
        name: of this call, under which its answer stands; that of the step for a call step.
        params: exactly those that the caller declares.
        request_id: what the logs of all servers call the request.
        deadline: by when the source has to be done.
        want_image: whether an image is wanted; without it one is dropped.
        values: what earlier calls of the source answered, by their names.
        region: what a call step that works on regions is about.
        regions: for a call step about the source: all of its regions, with what was read in them.
        traceparent: the header of that name, to be sent along, so that what the API does is in the trace of the
            request; empty where there are no traces.
    """

    api: str
    name: str
    params: Mapping[str, str]
    source_id: str
    job_id: str
    request_id: str
    deadline: Deadline
    want_image: bool
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    region: Region | None = None
    regions: tuple[Region, ...] = ()
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call brought.

    Attributes:
        image: a file that a source may be, picture or document, or None.
        values: by name, what JSON can say: texts, numbers, truth values, None, lists, and mappings with texts as keys;
            1 MiB in all, and 24 deep. The client gets them under the name of the call. Numbers travel as doubles:
            hand on whole numbers beyond 2**53 as texts.
        detection: options for the detection of the source; later calls win. Without effect after detection.
    """

    image: bytes | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    detection: DetectionChoice | None = None


class Caller(Protocol):
    """A user's class, named in the configuration as `caller = "module:Class"`; made once, without arguments.

    Calls run concurrently in one event loop: they must not block. A call is cancelled when the client leaves or its
    time is up. An exception, or an answer that is not as `Answer` says, fails the call as UPSTREAM_FAILED, and why goes
    to the log alone; raise `sluiceway_runtime.errors.UpstreamRefused` or `UpstreamFailed` to tell the client something.

    A caller may have `async def close(self)`: called once when the server stops, after the last call, with a few
    seconds for it.

    Attributes:
        params: names of the parameters that a call has to give.
    """

    params: Sequence[str]

    async def setup(self, session: aiohttp.ClientSession, config: Mapping[str, Any]) -> None:
        """Called once before the first call.

        Args:
            session: pooled connections, the caller's until the server stops, which closes them.
            config: the table `[api.NAME.config]`, empty if there is none.
        """
        ...

    async def __call__(self, call: Call) -> Answer:
        """Make one call."""
        ...
