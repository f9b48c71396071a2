"""The sections `[orchestrator]` and `[api.NAME]` of the configuration."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from sluiceway_runtime.config import Port, ServerConfig
from sluiceway_runtime.errors import ConfigurationError

from sluiceway_orchestrator.http.config import HttpConfig

__all__ = ["NO_MODEL", "ApiConfig", "OrchestratorConfig", "load_apis"]

# Route targets that are not names of models.
DEFAULT_MODEL, NO_MODEL = "default", "none"

# `{name}` stands for a declared parameter, `{secret.NAME}` for a secret; anything else in braces is left alone, so that
# JSON bodies need no escaping.
PLACEHOLDER = re.compile(r"\{(secret\.)?([A-Za-z_][A-Za-z0-9_]*)\}")
_API_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _network(text: str) -> str:
    ipaddress.ip_network(text)
    return text


Network = Annotated[str, AfterValidator(_network)]
Pointer = Annotated[str, Field(pattern=r"^(/([^~]|~[01])*)?$")]


class ApiConfig(BaseModel):
    """One external API that sources may call by name: a request described here, or a class of the user's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    caller: str | None = Field(None, description="`module:Class`, or the name of a `sluiceway.callers` entry point.")
    url: str | None = Field(None, description="URL with {param} in its path or query, never in its host.")
    params: tuple[str, ...] = Field((), description="Names of the parameters that a source has to give.")
    method: Literal["GET", "POST", "PUT"] = Field("GET", description="Of the request.")
    headers: Mapping[str, str] = Field({}, description="May hold {secret.NAME} and {param}.")
    body: str | None = Field(None, description="Body with {param}, escaped for JSON, or for a form if headers say so.")
    secrets: Mapping[str, str] = Field({}, description="NAME of a secret to the environment variable that holds it.")
    timeout_s: float = Field(10, gt=0, le=600, description="For one attempt, all of its redirects included.")
    retries: int = Field(2, ge=0, le=10, description="Further attempts, for idempotent calls only.")
    idempotent: bool | None = Field(None, description="Default: GET is, other methods are not.")
    hedge_after_s: float | None = Field(
        None, gt=0, description="Send a second request when the first (idempotent) one has not answered by then."
    )
    image: Literal["body", "base64", "url", "none"] = Field(
        "body", description="The answer is the image, holds it, names its URL, or has metadata alone."
    )
    image_pointer: Pointer | None = Field(
        None,
        description="RFC 6901 pointer to the base64 text, the URL, or a list of URLs (the first good one is taken).",
    )
    metadata: Mapping[str, Pointer] = Field({}, description="Field handed to the client to its JSON pointer.")
    allow_hosts: tuple[str, ...] = Field(("*",), description="Hosts that URLs in the answer may name.")
    allow_cidrs: tuple[Network, ...] = Field((), description="Non-public addresses that they may lead to.")
    max_in_flight: int = Field(64, ge=1, description="Calls of this API at once; one is for metadata alone.")
    breaker_failures: int = Field(8, ge=1, description="Failures in a row that stop calls for a while.")
    breaker_open_s: float = Field(5, gt=0, description="How long they are stopped before one is tried.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.caller is None) == (self.url is None):
            raise ValueError("exactly one of `caller` and `url` must be given")
        if self.url is None:
            return self
        match = re.match(r"^https?://([^/?#]+)", self.url)
        if match is None:
            raise ValueError("url: must start with http:// or https:// and a host")
        if PLACEHOLDER.search(match[1]):
            raise ValueError("url: the host must be fixed, or a client could choose where secrets are sent")
        if "@" in match[1]:
            raise ValueError("url: a user name in it is never sent; use headers and secrets")
        if (self.image in ("base64", "url")) != (self.image_pointer is not None):
            raise ValueError("image_pointer: needed for image = base64 or url, and only there")
        if self.metadata and self.image == "body":
            raise ValueError("metadata: an answer that is the image itself has no fields")
        for text in (self.url, self.body or "", *self.headers.values()):
            for secret, name in PLACEHOLDER.findall(text):
                if secret and name not in self.secrets:
                    raise ValueError(f"{{secret.{name}}}: no such secret")
                if not secret and name not in self.params:
                    raise ValueError(f"{{{name}}}: no such parameter")
        return self

    @property
    def safe_to_repeat(self) -> bool:
        """Whether a call may be sent again, or twice at once."""
        return self.method == "GET" if self.idempotent is None else self.idempotent


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


def load_apis(tables: Mapping[str, Any]) -> dict[str, ApiConfig]:
    """Read every `[api.NAME]`.

    Args:
        tables: the whole configuration, as `sluiceway_runtime.config.read_file` returned it.

    Raises:
        ConfigurationError: with every fault of every API, each naming its key.
    """
    apis: dict[str, ApiConfig] = {}
    faults: list[str] = []
    section = tables.get("api", {})
    if not isinstance(section, Mapping):
        raise ConfigurationError("api: must hold a table for each API")
    for name, table in section.items():
        if not _API_NAME.fullmatch(name):
            faults.append(f"api.{name}: a name has letters, digits, '_', '.', '-', at most 64")
            continue
        try:
            apis[name] = ApiConfig.model_validate(table)
        except ValidationError as error:
            for fault in error.errors(include_url=False, include_input=False):
                key = ".".join(str(part) for part in ("api", name, *fault["loc"]))
                message = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"]
                faults.append(f"{key}: {message}")
    if faults:
        raise ConfigurationError("\n".join(faults))
    return apis
