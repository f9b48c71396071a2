"""The section `[orchestrator]` of the configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator
from sluiceway_runtime.config import Port, ServerConfig

from sluiceway_orchestrator.config.apis import Network, Proxy
from sluiceway_orchestrator.config.http import HttpConfig
from sluiceway_orchestrator.config.pipelines import DEFAULT_PIPELINE
from sluiceway_orchestrator.config.scaler import ScalerConfig

__all__ = ["OrchestratorConfig"]


class OrchestratorConfig(ServerConfig):
    """What `[orchestrator]` may say."""

    port: Port = Field(50051, description="gRPC port.")
    operations_port: Port = Field(9051, description="HTTP port of /livez, /readyz and /metrics.")

    max_connection_age_s: float | None = Field(
        300, gt=0, description="Older connections are ended as soon as no call runs on them, so that clients look anew."
    )

    detection: str = Field(
        "dns:///localhost:50052", description="Where detection is: dns:///, list, file:, unix: or xds:///."
    )
    recognition: str = Field("dns:///localhost:50053", description="Where recognition is.")
    default_pipeline: str = Field(DEFAULT_PIPELINE, description="The pipeline of jobs that name none.")

    url_sources: bool = Field(True, description="Whether sources may be URLs.")
    url_allow_hosts: tuple[str, ...] = Field(
        ("*",), description="Hosts that URLs may name: `example.org`, `*.example.org`, or `*` for any public address."
    )
    url_allow_cidrs: tuple[Network, ...] = Field(
        (), description="Addresses that URLs may lead to although they are not public, or their host is not listed."
    )
    proxy: Proxy | None = Field(
        None,
        description="What fetches the URLs of sources: http://proxy:3128. It decides what addresses names stand for.",
    )
    url_timeout_s: float = Field(15, gt=0, description="For one attempt at a URL.")
    url_retries: int = Field(2, ge=0, le=10, description="Further attempts at a URL.")
    url_hedge_after_s: float | None = Field(
        None, gt=0, description="Send a second request when the first has not answered by then."
    )
    fetch_per_host: int = Field(64, ge=1, description="Connections to one host.")
    fetch_total: int = Field(512, ge=1, description="Connections in all.")
    http: HttpConfig = Field(default_factory=HttpConfig, description="The public HTTP port.")
    scaler: ScalerConfig = Field(default_factory=ScalerConfig, description="The port that an autoscaler asks.")

    max_sources: int = Field(1024, ge=1, description="Sources in one job.")
    max_image_bytes: int = Field(32 * 2**20, ge=1024, description="Largest image file.")
    max_jobs: int = Field(1024, ge=1, description="Jobs at once, of all ports; more are refused with QUEUE_FULL.")
    latency_bound_ms: float | None = Field(
        None,
        gt=0,
        description="What is expected to take longer is refused with QUEUE_FULL at once, though its deadline would "
        "allow it; not bulk work, nor jobs of streams. Without it the deadline alone counts.",
    )
    max_sources_in_flight: int = Field(512, ge=1, description="Sources worked on at once by this process.")
    max_sources_per_client: int = Field(128, ge=1, description="Sources worked on at once for one client.")
    interactive_clients: tuple[str, ...] = Field(
        ("*",), description="Clients, by the names of their tokens, that may ask for INTERACTIVE; `*` is everybody."
    )
    max_jobs_per_stream: int = Field(64, ge=1, description="Jobs at once of one ProcessStream call.")
    events_ahead: int = Field(64, ge=1, description="Events of one call held for a client that reads slowly.")
    coalesce_ms: float = Field(4, ge=0, description="Recognitions after a source's first are gathered for this long.")
    coalesce_items: int = Field(32, ge=1, description="... or until there are this many.")

    resolve_interval_s: float = Field(2, gt=0, le=60, description="How often stage names are resolved again.")
    max_crops_per_call: int = Field(64, ge=1, description="Crops in one call of a stage; more are split.")
    initial_window: int = Field(4, ge=1, description="Items sent to a replica that has not reported its capacity.")
    retry_ratio: float = Field(0.2, ge=0, le=1, description="Repeated stage calls for each call, over time.")
    age_normal_s: float = Field(2, ge=0, description="Head start of interactive work over normal work.")
    age_bulk_s: float = Field(10, ge=0, description="Head start of interactive work over bulk work.")

    @model_validator(mode="before")
    @classmethod
    def _keys_of_before(cls, values: Any) -> Any:
        """Say what has become of keys that older configurations have."""
        if isinstance(values, Mapping) and "routes" in values:
            raise ValueError(f"routes: {_steps_for(values['routes'])}")
        if isinstance(values, Mapping) and "fetch_bytes" in values:
            raise ValueError("fetch_bytes: images count in memory_bytes now, with all else that is held")
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        # Room for the options beside the image.
        if self.max_message_bytes < self.max_image_bytes + 2**16:
            raise ValueError("max_message_bytes: must hold an image of max_image_bytes and 64 KiB more")
        return self


def _steps_for(routes: object) -> str:
    """The steps that do what routes did."""
    steps: dict[str, list[str]] = {}
    everything_else = "default"
    for name, target in routes.items() if isinstance(routes, Mapping) else ():
        models = (target,) if isinstance(target, str) else tuple(target)
        if name == "*":
            everything_else = str(models[0]) if models else "none"
            continue
        for model in models:
            steps.setdefault(str(model), []).append(str(name))
    named = list(dict.fromkeys(name for names in steps.values() for name in names))
    lines = [
        f'{{ name = "read_{index}", stage = "recognition", of = "text", classes = {json.dumps(names)}'
        + (f', model = "{model}" }}' if model != "default" else " }")
        for index, (model, names) in enumerate(steps.items())
        if model not in ("none", "")
    ]
    if everything_else not in ("none", ""):
        model = "" if everything_else == "default" else f', model = "{everything_else}"'
        lines.insert(
            0, f'{{ name = "words", stage = "recognition", of = "text", except_classes = {json.dumps(named)}{model} }}'
        )
    return (
        "routes are steps of a pipeline now; under [pipelines.read] write steps = ["
        + ", ".join(['{ name = "text", stage = "detection" }', *lines])
        + "]"
    )
