"""The orchestrator as a service of the runtime: makes the parts and joins them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import grpc.aio
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.server.security import Security
from sluiceway_runtime.server.transport import open_channel

from sluiceway.pipeline.v1 import pipeline_pb2_grpc
from sluiceway_orchestrator.backlog import Ageing
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.fetch.config import ApiConfig
from sluiceway_orchestrator.convert import crop_fields, recognize_head
from sluiceway_orchestrator.fetch.fetcher import Fetcher
from sluiceway_orchestrator.fetch.guard import LookUp, system_look_up
from sluiceway_orchestrator.flow import Flow
from sluiceway_orchestrator.gate import Gate
from sluiceway_orchestrator.http.convert import message_to_json
from sluiceway_orchestrator.http.port import HttpPort
from sluiceway_orchestrator.jobs import Jobs
from sluiceway_orchestrator.servicer import PipelineServicer
from sluiceway_orchestrator.stages.clients import (
    DetectionClient,
    DetectionDescription,
    DetectionWire,
    RecognitionClient,
    RecognitionDescription,
    RecognitionWire,
)
from sluiceway_orchestrator.stages.resolver import Lookup, system_lookup
from sluiceway_orchestrator.stages.stage import Stage, StageSettings

__all__ = ["OrchestratorService"]


class OrchestratorService:
    """Everything that the orchestrator is made of, from `start` to `close`.

    It is ready as soon as it listens: stages may come later (from zero replicas), and work waits for them.
    """

    names: tuple[str, ...] = ("sluiceway.pipeline.v1.PipelineService",)

    def __init__(
        self,
        config: OrchestratorConfig,
        apis: Mapping[str, ApiConfig] | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        security: Security | None = None,
        stage_lookup: Lookup = system_lookup,
        url_look_up: LookUp = system_look_up,
    ) -> None:
        self._config = config
        self._started = False
        ageing = Ageing(config.age_normal_s, config.age_bulk_s)
        settings = StageSettings(
            resolve_interval_s=config.resolve_interval_s,
            initial_window=config.initial_window,
            retry_ratio=config.retry_ratio,
            ageing=ageing,
        )

        def channel(target: str, name: str | None) -> grpc.aio.Channel:
            # A replica is dialled by its address, but its certificate is for the name that all replicas share.
            return open_channel(target, max_message_bytes=config.max_message_bytes, security=security, authority=name)

        certificates = security.stamp if security is not None else lambda: None
        self._fetcher = Fetcher(config, apis or {}, environment or {}, look_up=url_look_up)
        self.detection: Stage[DetectionDescription] = Stage(
            "detection", config.detection, DetectionWire(), settings, open_channel=channel, lookup=stage_lookup,
            certificates=certificates,
        )  # fmt: skip
        self.recognition: Stage[RecognitionDescription] = Stage(
            "recognition", config.recognition, RecognitionWire(), settings, open_channel=channel, lookup=stage_lookup,
            certificates=certificates,
        )  # fmt: skip
        self._gate = Gate(config.max_sources_in_flight, config.max_sources_per_client, ageing)
        self._crops: tuple[DetectionDescription, RecognitionDescription, bytes] | None = None
        self.flow = Flow(
            fetcher=self._fetcher,
            detector=DetectionClient(self.detection),
            recognizer=RecognitionClient(self.recognition),
            crop_fields=self._crop_fields,
            recognize_head=recognize_head,
            gate=self._gate,
            max_crops_per_call=config.max_crops_per_call,
            saturated=self._is_saturated,
        )
        self._jobs = Jobs(config, self.flow)
        self._servicer = PipelineServicer(
            config,
            self._jobs,
            detection=self.detection,
            recognition=self.recognition,
            apis=lambda: {name: api.params for name, api in self._fetcher.apis.items()},
            version=version("sluiceway"),
        )
        self.http = HttpPort(
            config,
            config.http,
            run=self._jobs.run,
            describe=lambda: message_to_json(self._servicer.description()),
            security=security,
        )

    async def start(self) -> None:
        """Open connections. Raises StartupError."""
        await self._fetcher.start()
        await self.detection.start()
        await self.recognition.start()
        await self.http.start()
        self._started = True

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicer."""
        pipeline_pb2_grpc.add_PipelineServiceServicer_to_server(self._servicer, server)

    def collectors(self, registry: CollectorRegistry) -> None:
        """Add the metrics."""
        registry.register(_OrchestratorCollector(self))

    def ready(self) -> bool:
        """Whether it takes work now."""
        return self._started

    def status(self) -> Mapping[str, Any]:
        """What `/statusz` shows."""
        return {
            "jobs": self._jobs.running,
            "sources_waiting": self._gate.waiting,
            "fetch_bytes": self._fetcher.budget.used_bytes,
            "stages": {
                stage.name: {
                    "target": stage.target.text,
                    "backlog_items": stage.backlog_items,
                    "replicas": [
                        {
                            "address": replica.address,
                            "ready": replica.ready,
                            "in_flight": replica.occupancy.in_flight,
                            "sent": replica.occupancy.sent,
                        }
                        for replica in stage.replicas
                    ],
                }
                for stage in self._stages
            },
        }

    def refuse(self) -> None:
        """Take no more jobs over HTTP."""
        self.http.refuse()

    async def drain(self, grace_s: float) -> bool:
        """Finish the jobs that came in over HTTP; every other belongs to a call, and those have ended."""
        return await self.http.drain(grace_s)

    async def close(self) -> None:
        """Close every connection."""
        self._started = False
        await self.http.close()
        await asyncio.gather(self.detection.close(), self.recognition.close(), self._fetcher.close())

    def _is_saturated(self) -> bool:
        """Whether every stage is there and one of them has all that it can work on."""
        return all(stage.is_there for stage in self._stages) and any(stage.is_full for stage in self._stages)

    @property
    def _stages(self) -> tuple[Stage[Any], Stage[Any]]:
        return self.detection, self.recognition

    async def _crop_fields(self, deadline: Deadline) -> bytes:
        """What detection is asked to cut: the same until a stage describes itself anew."""
        detection = self.detection.last_description or await self.detection.describe(deadline)
        recognition = self.recognition.last_description or await self.recognition.describe(deadline)
        if self._crops is None or self._crops[0] is not detection or self._crops[1] is not recognition:
            self._crops = (detection, recognition, crop_fields(self._config.routes, detection, recognition))
        return self._crops[2]

    def metrics(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
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
        for stage in self._stages:
            backlog.add_metric([stage.name], stage.backlog_items)
            in_flight.add_metric([stage.name], sum(replica.occupancy.in_flight for replica in stage.replicas))
            ready.add_metric([stage.name], sum(replica.ready for replica in stage.replicas))
        yield from (backlog, in_flight, ready)
        yield GaugeMetricFamily("sluiceway_jobs_running", "Jobs in progress.", value=self._jobs.running)
        yield GaugeMetricFamily(
            "sluiceway_sources_waiting", "Sources that wait for admission.", value=self._gate.waiting
        )
        yield GaugeMetricFamily(
            "sluiceway_fetch_bytes", "Bytes reserved for fetched images.", value=self._fetcher.budget.used_bytes
        )
        counts = self.flow.statistics
        sources = CounterMetricFamily("sluiceway_sources", "Sources that ended.", labels=("result", "reason"))
        sources.add_metric(["done", ""], counts.sources_done)
        for reason, number in counts.sources_failed.items():
            sources.add_metric(["failed", reason], number)
        regions = CounterMetricFamily("sluiceway_regions", "Regions that were answered.", labels=("result",))
        regions.add_metric(["read"], counts.regions - counts.regions_failed)
        regions.add_metric(["failed"], counts.regions_failed)
        yield from (sources, regions)


class _OrchestratorCollector(Collector):
    def __init__(self, service: OrchestratorService) -> None:
        self._service = service

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        return self._service.metrics()
