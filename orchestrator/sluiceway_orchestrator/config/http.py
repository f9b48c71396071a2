"""The section `[orchestrator.http]` of the configuration."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from sluiceway_runtime.config import Port

__all__ = ["HttpConfig"]


class HttpConfig(BaseModel):
    """What `[orchestrator.http]` may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(True, description="Whether to listen at all.")
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 in containers.")
    port: Port = Field(8080, description="Port of /v1/process; 0 lets the system choose.")
    page: bool = Field(True, description="Whether `GET /` shows the page for people.")
    allow_hosts: tuple[str, ...] = Field(
        (),
        description="Names that clients may call this server by, beside `host` and those of this machine's loopback; "
        "`*` is any. Stops web pages that point a name of their own at this address.",
    )
    allow_origins: tuple[str, ...] = Field(
        (), description="Origins, such as https://app.example.org, whose pages may call; `*` is any."
    )
