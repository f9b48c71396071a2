"""The section `[orchestrator]` of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator
from sluiceway_runtime.config import Port, ServerConfig

from sluiceway_orchestrator.fetch.config import Network
from sluiceway_orchestrator.http.config import HttpConfig

__all__ = ["NO_MODEL", "OrchestratorConfig"]

# Route targets that are not names of models.
DEFAULT_MODEL, NO_MODEL = "default", "none"


class OrchestratorConfig(ServerConfig):
    """What `[orchestrator]` may say."""

    port: Port = Field(50051, description="gRPC port.")
    operations_port: Port = Field(9051, description="HTTP port of /livez, /readyz and /metrics.")

    detection: str = Field("dns:///localhost:50052", description="Where detection is: dns:///, list, unix: or xds:///.")
    recognition: str = Field("dns:///localhost:50053", description="Where recognition is.")
    routes: Mapping[str, str | tuple[str, ...]] = Field(
        {"*": DEFAULT_MODEL, "image": NO_MODEL},
        description="Detection class to the recognition model(s) that read it; `*` is every other class, `default` the "
        "first model of the stage, `none` no recognition.",
    )

    url_sources: bool = Field(True, description="Whether sources may be URLs.")
    url_allow_hosts: tuple[str, ...] = Field(
        ("*",), description="Hosts that URLs may name: `example.org`, `*.example.org`, or `*` for any public address."
    )
    url_allow_cidrs: tuple[Network, ...] = Field(
        (), description="Addresses that URLs may lead to although they are not public, or their host is not listed."
    )
    url_timeout_s: float = Field(15, gt=0, description="For one attempt at a URL.")
    url_retries: int = Field(2, ge=0, le=10, description="Further attempts at a URL.")
    url_hedge_after_s: float | None = Field(
        None, gt=0, description="Send a second request when the first has not answered by then."
    )
    fetch_per_host: int = Field(64, ge=1, description="Connections to one host.")
    fetch_total: int = Field(512, ge=1, description="Connections in all.")
    fetch_bytes: int = Field(
        512 * 2**20,
        ge=2**20,
        description="Bytes of images fetched or being fetched, not detected; as much again for answers wanted for "
        "metadata alone.",
    )

    http: HttpConfig = Field(default_factory=HttpConfig, description="The public HTTP port.")

    max_sources: int = Field(1024, ge=1, description="Sources in one job.")
    max_image_bytes: int = Field(32 * 2**20, ge=1024, description="Largest image file.")
    max_jobs: int = Field(1024, ge=1, description="Jobs at once, of all ports; more are refused with QUEUE_FULL.")
    max_sources_in_flight: int = Field(512, ge=1, description="Sources worked on at once by this process.")
    max_sources_per_client: int = Field(128, ge=1, description="Sources worked on at once for one client.")
    max_jobs_per_stream: int = Field(64, ge=1, description="Jobs at once of one ProcessStream call.")
    events_ahead: int = Field(64, ge=1, description="Events of one call held for a client that reads slowly.")
    coalesce_ms: float = Field(4, ge=0, description="Recognitions after a source's first are gathered for this long.")
    coalesce_items: int = Field(32, ge=1, description="... or until there are this many.")

    resolve_interval_s: float = Field(2, gt=0, le=60, description="How often stage names are resolved again.")
    max_crops_per_call: int = Field(64, ge=1, description="Crops in one call of recognition; more are split.")
    initial_window: int = Field(4, ge=1, description="Items sent to a replica that has not reported its capacity.")
    retry_ratio: float = Field(0.2, ge=0, le=1, description="Repeated stage calls for each call, over time.")
    age_normal_s: float = Field(2, ge=0, description="Head start of interactive work over normal work.")
    age_bulk_s: float = Field(10, ge=0, description="Head start of interactive work over bulk work.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fetch_bytes < self.max_image_bytes:
            raise ValueError("fetch_bytes: must hold at least one image of max_image_bytes")
        # Room for the options beside the image.
        if self.max_message_bytes < self.max_image_bytes + 2**16:
            raise ValueError("max_message_bytes: must hold an image of max_image_bytes and 64 KiB more")
        return self
