"""What is read from the orchestrator when it is scraped: its stages, its lines, its jobs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from prometheus_client import Metric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.metrics.instruments import Family, counter, gauge
from sluiceway_runtime.metrics.waits import Waits

__all__ = ["FAMILIES", "OrchestratorCollector", "ShownGate", "ShownStage"]

_STAGE = ("stage",)

JOBS = Family("sluiceway_jobs_running", "gauge", "Jobs in progress.")
WAITING = Family("sluiceway_sources_waiting", "gauge", "Images that wait for their turn in the orchestrator.")
OLDEST_SOURCE = Family(
    "sluiceway_sources_oldest_wait_seconds", "gauge", "How long the one has waited that waits the longest; 0 if none."
)
ADMISSION = Family(
    "sluiceway_sources_wait_seconds", "histogram", "How long images waited for their turn in the orchestrator."
)
KNOWN = Family(
    "sluiceway_stage_replicas",
    "gauge",
    "Replicas that the stage's name stands for, as this orchestrator sees it.",
    _STAGE,
)
READY = Family("sluiceway_stage_ready_replicas", "gauge", "Of those, the ones that take work.", _STAGE)
GROUPS = Family(
    "sluiceway_stage_groups",
    "gauge",
    "Versions that ready replicas serve; above 1 while a new one is rolled out.",
    _STAGE,
)
BACKLOG = Family(
    "sluiceway_stage_backlog_items",
    "gauge",
    "Images or crops that wait for a replica of the stage; above 0 it needs more of them, from zero too.",
    _STAGE,
)
IN_FLIGHT = Family("sluiceway_stage_in_flight_items", "gauge", "Images or crops that are with a replica.", _STAGE)
OLDEST = Family(
    "sluiceway_stage_oldest_wait_seconds",
    "gauge",
    "How long the call has waited for a replica that waits the longest; 0 while none does.",
    _STAGE,
)
PRESSURE = Family(
    "sluiceway_stage_pressure_seconds",
    "gauge",
    "How long work waits for a worker of the stage, here and in the fullest replica: rises within a second, falls over "
    "half a minute. What a stage is scaled by.",
    _STAGE,
)
WAIT = Family(
    "sluiceway_stage_wait_seconds", "histogram", "How long calls waited in the orchestrator for a replica.", _STAGE
)
RETRIES = Family(
    "sluiceway_stage_retries",
    "counter",
    "Calls of the stage that were made again, and why: the connection `broke`, the replica was `full`, it was "
    "`leaving` or starting, or served another `version`.",
    ("stage", "reason"),
)
DENIED = Family(
    "sluiceway_stage_retries_denied",
    "counter",
    "Calls that were not made again as the budget for that was used up.",
    _STAGE,
)
BUDGET = Family(
    "sluiceway_stage_retry_budget", "gauge", "Calls of the stage that may be made again, one after the other.", _STAGE
)
FAMILIES = (
    JOBS,
    WAITING,
    OLDEST_SOURCE,
    ADMISSION,
    KNOWN,
    READY,
    GROUPS,
    BACKLOG,
    IN_FLIGHT,
    OLDEST,
    PRESSURE,
    WAIT,
    RETRIES,
    DENIED,
    BUDGET,
)


class ShownBudget(Protocol):
    """What is shown of `stages.retry.RetryBudget`."""

    @property
    def denied(self) -> int:
        """Retries that were not made."""
        ...

    @property
    def tokens(self) -> float:
        """Retries that may be made."""
        ...


class ShownStage(Protocol):
    """What is shown of `stages.stage.Stage`."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def waits(self) -> Waits:
        """Those for a replica."""
        ...

    @property
    def retried(self) -> Mapping[str, int]:
        """Calls that were made again, by why."""
        ...

    @property
    def retries(self) -> ShownBudget:
        """Its budget."""
        ...

    @property
    def replicas(self) -> Sequence[Any]:
        """Those that there are."""
        ...

    @property
    def members(self) -> Sequence[tuple[Any, Sequence[Any]]]:
        """By version."""
        ...

    @property
    def backlog_items(self) -> int:
        """What waits."""
        ...


class ShownGate(Protocol):
    """What is shown of `gate.Gate`."""

    @property
    def waits(self) -> Waits:
        """Those for a slot."""
        ...

    @property
    def waiting(self) -> int:
        """Sources that wait."""
        ...


class OrchestratorCollector(Collector):
    """Reads stages, gate and jobs, in every state of the server."""

    def __init__(
        self,
        stages: Collection[ShownStage],
        gate: ShownGate,
        jobs_running: Callable[[], int],
        pressure_s: Callable[[str], float],
    ) -> None:
        self._stages = stages
        self._gate = gate
        self._jobs_running = jobs_running
        self._pressure_s = pressure_s

    def collect(self) -> Iterable[Metric]:
        """Read once."""
        now_s = monotonic()
        yield gauge(JOBS, self._jobs_running())
        yield gauge(WAITING, self._gate.waiting)
        yield gauge(OLDEST_SOURCE, self._gate.waits.oldest_s(now_s))
        yield _spent(ADMISSION, [((), self._gate.waits)])
        stages = [((stage.name,), stage) for stage in self._stages]
        yield gauge(KNOWN, [(name, len(stage.replicas)) for name, stage in stages])
        yield gauge(READY, [(name, sum(replica.ready for replica in stage.replicas)) for name, stage in stages])
        yield gauge(GROUPS, [(name, sum(bool(found) for _, found in stage.members)) for name, stage in stages])
        yield gauge(BACKLOG, [(name, stage.backlog_items) for name, stage in stages])
        yield gauge(
            IN_FLIGHT,
            [(name, sum(replica.occupancy.in_flight for replica in stage.replicas)) for name, stage in stages],
        )
        yield gauge(OLDEST, [(name, stage.waits.oldest_s(now_s)) for name, stage in stages])
        yield gauge(PRESSURE, [(name, self._pressure_s(stage.name)) for name, stage in stages])
        yield _spent(WAIT, [(name, stage.waits) for name, stage in stages])
        yield counter(
            RETRIES, [((*name, reason), number) for name, stage in stages for reason, number in stage.retried.items()]
        )
        yield counter(DENIED, [(name, stage.retries.denied) for name, stage in stages])
        yield gauge(BUDGET, [(name, stage.retries.tokens) for name, stage in stages])


def _spent(family: Family, waits: Iterable[tuple[Sequence[str], Waits]]) -> Metric:
    shown = HistogramMetricFamily(family.name, family.text, labels=family.labels)
    for labels, its in waits:
        its.spent.add_to(shown, labels)
    return shown
