"""A job as the flow sees it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from sluiceway_runtime.deadline import Deadline

from sluiceway_orchestrator.priority import Priority

__all__ = ["ApiCall", "Job", "Source"]


@dataclass(frozen=True, slots=True)
class ApiCall:
    """A call to a configured API."""

    api: str
    params: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Source:
    """Where one image comes from: exactly one of image, url and api_call, or none if the client gave none."""

    source_id: str
    image: bytes | None = None
    url: str | None = None
    api_call: ApiCall | None = None
    metadata_calls: tuple[ApiCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """One job.

    Attributes:
        client: whose fair share it uses.
        detect_fields: the options for detection, as serialised fields of its request.
        recognize_fields: the options for recognition, likewise.
        accepted_s: monotonic time.
    """

    job_id: str
    sources: tuple[Source, ...]
    client: Hashable
    priority: Priority
    deadline: Deadline
    request_id: str
    accepted_s: float
    detect_fields: bytes = b""
    recognize_fields: bytes = b""
    return_images: bool = False
    detect_only: bool = False
