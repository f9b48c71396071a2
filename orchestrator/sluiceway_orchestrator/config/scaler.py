"""The section `[orchestrator.scaler]` of the configuration."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator
from sluiceway_runtime.config import Port

__all__ = ["ScalerConfig"]


class ScalerConfig(BaseModel):
    """What `[orchestrator.scaler]` may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(False, description="Whether to listen at all.")
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 in containers.")
    port: Port = Field(9061, description="Port of KEDA's external-push scaler, in the clear; 0 lets the system choose.")
    peers: str = Field(
        "",
        description="All orchestrators by this port, dns:///name:port: KEDA asks one, and jobs may wait at another.",
    )

    @field_validator("peers")
    @classmethod
    def _resolvable(cls, peers: str) -> str:
        if peers.startswith(("xds:", "unix:", "unix-abstract:", "vsock:")):
            raise ValueError("wants a name that stands for every orchestrator, dns:///name:port")
        return peers
