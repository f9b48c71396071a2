"""Every family that servers show, but for those of the orchestrator and those that prometheus-client has itself."""

from __future__ import annotations

from sluiceway_runtime.metrics import calls, certificate, cgroup, gpu, http, pool, server

__all__ = ["EVERY_SERVER", "STAGES"]

EVERY_SERVER = (
    server.BUILD,
    server.READY,
    server.STATE,
    calls.CALLS,
    http.REQUESTS,
    server.ACCOUNT_BYTES,
    server.ACCOUNT_LIMIT_BYTES,
    server.ACCOUNT_WAITING,
    server.LAG,
    cgroup.PERIODS,
    cgroup.THROTTLED_PERIODS,
    cgroup.THROTTLED_SECONDS,
    certificate.EXPIRY,
)
STAGES = (*pool.FAMILIES, gpu.STATUS, gpu.UTILIZATION, gpu.USAGE, gpu.LIMIT)
