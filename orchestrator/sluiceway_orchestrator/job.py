"""A job as the executor sees it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.priority import Priority

__all__ = ["ApiCall", "Buffer", "Job", "Source"]

Buffer = bytes | memoryview
"""An image file: bytes of its own, or a view into the request that brought it."""


@dataclass(frozen=True, slots=True)
class ApiCall:
    """A call to a configured API.

    Attributes:
        name: of its answer among the values of the source.
    """

    api: str
    params: Mapping[str, str]
    name: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where one image comes from: at most one of image, url and api_call; with none, one of `calls` brings it.

    Attributes:
        params: for the call steps of the pipeline.
    """

    source_id: str
    image: Buffer | None = None
    url: str | None = None
    api_call: ApiCall | None = None
    calls: tuple[ApiCall, ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """One job.

    Attributes:
        pipeline: name of the pipeline, known.
        client: whose fair share it uses.
        accepted_s: monotonic time.
        detect_options: the request's own options for each detection step, as serialised fields of `DetectRequest`; a
            step that is not in it has none.
        own_options: names of the options of each detection step that the job sets itself; an answer of an API that
            chooses options has its way with the others.
        recognize_options: likewise for each recognition step, as fields of `RecognizeRequest`.
        prefers_text: of pages that hold text, hand that out in place of reading.
    """

    job_id: str
    pipeline: str
    sources: tuple[Source, ...]
    client: Hashable
    priority: Priority
    deadline: Deadline
    request_id: str
    accepted_s: float
    detect_options: Mapping[str, bytes] = field(default_factory=dict)
    own_options: Mapping[str, frozenset[str]] = field(default_factory=dict)
    recognize_options: Mapping[str, bytes] = field(default_factory=dict)
    return_images: bool = False
    detect_only: bool = False
    prefers_text: bool = False
