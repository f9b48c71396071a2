"""What a server says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sluiceway.client.results import Model

__all__ = ["Api", "Description", "Endpoint", "ModelInfo", "Stage"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model that is served: `classes` are what a detector finds, or what a recogniser wants (empty: all)."""

    stage: str
    model: Model
    backend: str
    precision: str
    device: str
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One replica of a stage and its load when it last answered."""

    address: str
    ready: bool
    queued: int
    running: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: where it is configured to be, its replicas, and the worker processes of the one that answered."""

    name: str
    target: str
    endpoints: tuple[Endpoint, ...]
    workers: int


@dataclass(frozen=True, slots=True)
class Api:
    """An API that sources may call."""

    name: str
    params: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Description:
    """Models, limits, APIs and stages.

    Attributes:
        server_version: of the orchestrator.
        stages: detection and recognition with their replicas.
        models: those that could be asked.
        routes: recognition model by detection class; "*" stands for the others, empty for no recognition.
        apis: that sources may call.
        url_sources: whether sources may be URLs.
        max_sources: in one job.
        max_image_bytes: of one image file.
        max_message_bytes: of one gRPC message.
        default_deadline_s: for calls that set none.
        max_deadline_s: longer ones are cut to this.
    """

    server_version: str
    stages: tuple[Stage, ...]
    models: tuple[ModelInfo, ...]
    routes: Mapping[str, str]
    apis: tuple[Api, ...]
    url_sources: bool
    max_sources: int
    max_image_bytes: int
    max_message_bytes: int
    default_deadline_s: float
    max_deadline_s: float
