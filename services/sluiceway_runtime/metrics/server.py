"""What every server shows of itself, whatever it serves."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, GCCollector, Metric, PlatformCollector, ProcessCollector
from prometheus_client.registry import Collector

from sluiceway_runtime.account import MemoryBudget
from sluiceway_runtime.metrics.certificate import CertificateCollector
from sluiceway_runtime.metrics.cgroup import CgroupCollector
from sluiceway_runtime.metrics.instruments import Family, Histogram, Histograms, gauge
from sluiceway_runtime.release import release

__all__ = [
    "ACCOUNT_BYTES",
    "ACCOUNT_LIMIT_BYTES",
    "ACCOUNT_WAITING",
    "BUILD",
    "LAG",
    "READY",
    "STATE",
    "LoopLag",
    "ServerCollector",
    "show_process",
]

BUILD = Family(
    "sluiceway_build_info",
    "gauge",
    "Always 1: which server this is (`orchestrator`, or the name of a stage), its release and its Python.",
    ("server", "version", "python"),
)
READY = Family("sluiceway_ready", "gauge", "1 while the server takes work.")
STATE = Family(
    "sluiceway_state",
    "gauge",
    "1 for the state that the server is in, 0 for the others: `new`, `starting`, `ready`, `draining`, `stopped`, "
    "`failed`.",
    ("state",),
)
ACCOUNT_BYTES = Family(
    "sluiceway_account_bytes", "gauge", "Bytes of requests, images, crops and answers that the server holds."
)
ACCOUNT_LIMIT_BYTES = Family("sluiceway_account_limit_bytes", "gauge", "The most that it may hold (`memory_bytes`).")
ACCOUNT_WAITING = Family("sluiceway_account_waiting", "gauge", "Those that wait for room among these bytes.")
LAG = Family(
    "sluiceway_event_loop_lag_seconds",
    "histogram",
    "How late the server's event loop came to what was due, looked at five times a second while there is work, and "
    "every two seconds otherwise. While it is late nothing is received, sent or answered.",
)
_LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class LoopLag:
    """How late an event loop is. Whoever sleeps on it for a fixed time anyway says by how much it was too long."""

    def __init__(self, registry: CollectorRegistry) -> None:
        histograms = Histograms(LAG, _LAGS)
        registry.register(histograms)
        self._lag: Histogram = histograms.of()

    def observe(self, late_s: float) -> None:
        """It woke this much after its time."""
        self._lag.observe(max(0.0, late_s))


class ServerCollector(Collector):
    """Reads a server when it is scraped, whatever its state.

    Args:
        server: its name.
        states: that there are, and the one that it is in.
        ready: whether it takes work.
        budget: what it holds.
    """

    def __init__(
        self,
        server: str,
        states: Callable[[], tuple[Iterable[str], str]],
        ready: Callable[[], bool],
        budget: MemoryBudget,
    ) -> None:
        self._server = server
        self._states = states
        self._ready = ready
        self._budget = budget

    def collect(self) -> Iterable[Metric]:
        """Read it once."""
        yield gauge(BUILD, [((self._server, release(), platform.python_version()), 1)])
        yield gauge(READY, float(self._ready()))
        states, present = self._states()
        yield gauge(STATE, [((state,), float(state == present)) for state in states])
        yield gauge(ACCOUNT_BYTES, self._budget.used_bytes)
        yield gauge(ACCOUNT_LIMIT_BYTES, self._budget.total_bytes)
        yield gauge(ACCOUNT_WAITING, self._budget.waiting)


def show_process(registry: CollectorRegistry, certificate: Path | None) -> None:
    """Add what concerns the process as a whole: prometheus-client's own collectors, its CPU quota, its certificate."""
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(CgroupCollector())
    if certificate is not None:
        registry.register(CertificateCollector(certificate))
