"""The section `[orchestrator.http]` of the configuration."""

from __future__ import annotations

from pydantic import Field
from sluiceway_runtime.config import HttpPortConfig, Port

__all__ = ["HttpConfig"]


class HttpConfig(HttpPortConfig):
    """What `[orchestrator.http]` may say."""

    enabled: bool = Field(True, description="Whether to listen at all.")
    port: Port = Field(8080, description="Port of /v1/process; 0 lets the system choose.")
    page: bool = Field(True, description="Whether `GET /` shows the page for people.")
