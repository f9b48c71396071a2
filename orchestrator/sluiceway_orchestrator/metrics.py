"""Metrics of the orchestrator, read from it when it is scraped."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from sluiceway_orchestrator.pipelines.executor import ExecutorStatistics
from sluiceway_orchestrator.stages.stage import Stage

__all__ = ["OrchestratorCollector"]


class OrchestratorCollector(Collector):
    """Shows stages, jobs and what became of sources."""

    def __init__(
        self,
        stages: Collection[Stage[Any]],
        statistics: ExecutorStatistics,
        *,
        jobs_running: Callable[[], int],
        sources_waiting: Callable[[], int],
    ) -> None:
        self._stages = stages
        self._statistics = statistics
        self._jobs_running = jobs_running
        self._sources_waiting = sources_waiting

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """Read once for a scrape."""
        backlog = GaugeMetricFamily(
            "sluiceway_stage_backlog_items",
            "Images or crops that wait for a replica of the stage; above 0 it needs more of them, from zero too.",
            labels=("stage",),
        )
        in_flight = GaugeMetricFamily(
            "sluiceway_stage_in_flight_items", "Images or crops with the stage.", labels=("stage",)
        )
        ready = GaugeMetricFamily("sluiceway_stage_ready_replicas", "Replicas that take work.", labels=("stage",))
        groups = GaugeMetricFamily(
            "sluiceway_stage_groups", "Versions that ready replicas of the stage serve.", labels=("stage",)
        )
        for stage in self._stages:
            backlog.add_metric([stage.name], stage.backlog_items)
            in_flight.add_metric([stage.name], sum(replica.occupancy.in_flight for replica in stage.replicas))
            ready.add_metric([stage.name], sum(replica.ready for replica in stage.replicas))
            groups.add_metric([stage.name], sum(bool(members) for _, members in stage.members))
        yield from (backlog, in_flight, ready, groups)
        yield GaugeMetricFamily("sluiceway_jobs_running", "Jobs in progress.", value=self._jobs_running())
        yield GaugeMetricFamily(
            "sluiceway_sources_waiting", "Sources that wait for admission.", value=self._sources_waiting()
        )
        counts = self._statistics
        sources = CounterMetricFamily("sluiceway_sources", "Sources that ended.", labels=("result", "reason"))
        sources.add_metric(["done", ""], counts.sources_done)
        for reason, number in counts.sources_failed.items():
            sources.add_metric(["failed", reason], number)
        regions = CounterMetricFamily("sluiceway_regions", "Values of regions that stages gave.", labels=("result",))
        regions.add_metric(["read"], counts.regions - counts.regions_failed)
        regions.add_metric(["failed"], counts.regions_failed)
        yield from (sources, regions)
