"""What the sections of servers have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sluiceway_runtime.images.scale import MOST

__all__ = ["HttpPortConfig", "ModelsConfig", "Port", "ScaleKey", "ServerConfig", "StageConfig"]

Port = Annotated[int, Field(ge=0, le=65535)]
# The bounds belong to the number alone: on a union they would be applied to its words as well.
ScaleKey = Literal["auto", "fast"] | Annotated[float, Field(gt=0, le=MOST)]
Count = Annotated[int, Field(ge=1, le=1024)]


class ServerConfig(BaseModel):
    """What every server has. Ports of 0 let the system choose (tests)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 in containers.")
    port: Port = Field(description="gRPC port.")
    operations_port: Port = Field(description="HTTP port of /livez, /readyz and /metrics.")
    max_message_bytes: int = Field(64 * 2**20, ge=2**16, le=2**31 - 1, description="Largest gRPC message, both ways.")
    memory_bytes: Annotated[int, Field(ge=2**20)] | Literal["auto"] = Field(
        "auto",
        description="Most bytes of requests, images and answers held at once; `auto`: `queue_bytes` and 64 MiB in a "
        "stage, in an orchestrator two fifths of the memory that it may use.",
    )
    default_deadline_s: float = Field(30, gt=0, description="For calls that come without a deadline.")
    max_deadline_s: float = Field(300, gt=0, description="Longer deadlines are cut to this.")
    max_connection_age_s: float | None = Field(
        None,
        gt=0,
        description="Older connections are ended as soon as no call runs on them, so that clients look anew.",
    )
    drain_grace_s: float = Field(20, ge=0, description="After SIGTERM: how long running requests may take to finish.")
    drain_notice_s: float = Field(
        0.5, ge=0, description="After SIGTERM: calls are still taken this long while health says NOT_SERVING."
    )
    remember_requests: int = Field(
        10_000,
        ge=0,
        le=1_000_000,
        description="Latest requests whose stories are kept in memory for `sluiceway explain`; 0 keeps none.",
    )
    reflection: bool = Field(True, description="Serve grpc.reflection, for grpcurl and the like.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level of a line of the log, which goes to standard error."
    )
    log_format: Literal["text", "json"] = Field("text", description="json: one object a line, for collectors.")
    access_log: bool = Field(
        False, description="A line for each call and HTTP request that ended: method, code, milliseconds, client."
    )


class HttpPortConfig(BaseModel):
    """A port of public HTTP: where to listen, and whom to answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(False, description="Whether to listen at all.")
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 in containers.")
    port: Port = Field(description="Port; 0 lets the system choose.")
    allow_hosts: tuple[str, ...] = Field(
        (),
        description="Names that clients may call this server by, beside `host` and those of this machine's loopback; "
        "`*` is any. Stops web pages that point a name of their own at this address.",
    )
    allow_origins: tuple[str, ...] = Field(
        (), description="Origins, such as https://app.example.org, whose pages may call; `*` is any."
    )


class StageConfig(ServerConfig):
    """What every stage (a server with a worker pool) has besides."""

    workers: Count | Literal["auto"] = Field(
        "auto", description="Worker processes in all on a CPU; `auto` follows the goal and the cores."
    )
    workers_per_device: Annotated[int, Field(ge=1, le=16)] | Literal["auto"] = Field(
        "auto", description="Worker processes for each GPU; `auto`: one, and two where files are decoded for it."
    )
    threads_per_worker: Count | Literal["auto"] = Field("auto", description="Compute threads per worker.")
    goal: Literal["throughput", "latency"] = Field(
        "throughput", description="throughput: a worker a core. latency: few workers with many threads."
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda|cuda:\d+)$", description="auto takes every GPU, else the CPU."
    )
    cores: str | None = Field(
        None,
        pattern=r"^\d+(-\d+)?(,\d+(-\d+)?)*$",
        description="Cores that are this server's own, such as 0-3,6; workers are pinned to them.",
    )
    cpus: float | None = Field(
        None, gt=0, description="CPUs to plan for, where that is less than what may be used; a pod is told it."
    )
    max_batch: int = Field(1, ge=1, le=4096, description="Most items in a batch.")
    queue_items: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="Most items waiting; more are refused with QUEUE_FULL. `auto`: at least 256, and for each that the "
        "workers hold at once twelve, as several orchestrators may send.",
    )
    queue_bytes: int = Field(256 * 2**20, ge=2**20, description="Most payload bytes waiting.")
    batch_timeout_s: float = Field(60, gt=0, description="A worker that computes one batch for longer is replaced.")
    start_timeout_s: float = Field(120, gt=0, description="A worker that is not ready by then fails the start.")
    worker_memory_mb: int | None = Field(
        None,
        ge=64,
        description="A worker with more memory of its own, shared memory not counted, is replaced after its batch.",
    )

    http: HttpPortConfig = Field(
        default_factory=lambda: HttpPortConfig(port=0), description="HTTP port of the Open Inference Protocol."
    )

    @field_validator("cores")
    @classmethod
    def _cores(cls, value: str | None) -> str | None:
        for part in (value or "").split(","):
            first, dash, last = part.partition("-")
            if dash and int(last) < int(first):
                raise ValueError(f"{part} ends before it begins")
        return value


class ModelsConfig(BaseModel):
    """What `[models]` may say, for every server alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    auto_pull: bool | None = Field(
        None, description="Download missing weights at the start; by default `up` and `run` do, one server does not."
    )
