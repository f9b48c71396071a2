"""An orchestrator's real server between stages without models, and a client that keeps account."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc.aio
from sluiceway_runtime.server.app import Server

from sluiceway.common.v1 import error_pb2
from sluiceway.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.apis import ApiConfig
from sluiceway_orchestrator.service import OrchestratorService
from sluiceway_orchestrator.testing.stages import FakeDetection, FakeRecognition, FakeServer

__all__ = ["Cluster", "SourceEvents"]


@dataclass
class SourceEvents:
    """What a client heard of one source.

    Attributes:
        regions: by id, of all steps.
        found: events of detection steps, by step.
        texts: how often each text came.
        values: by step and region, what was said of regions.
        region_errors: of regions, by id.
        page_values: by step, what was said of the first page; of another one by `step/page`.
        order: kinds of events, in their order.
    """

    ready: pipeline_pb2.SourceReady | None = None
    regions: dict[int, pipeline_pb2.Region] = field(default_factory=dict)
    found: dict[str, list[pipeline_pb2.Regions]] = field(default_factory=dict)
    texts: Counter[str] = field(default_factory=Counter)
    values: dict[tuple[str, int], pipeline_pb2.Value] = field(default_factory=dict)
    region_errors: dict[int, error_pb2.Error] = field(default_factory=dict)
    page_values: dict[str, pipeline_pb2.Value] = field(default_factory=dict)
    source_values: dict[str, pipeline_pb2.Value] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    done: pipeline_pb2.SourceDone | None = None
    error: error_pb2.Error | None = None
    order: list[str] = field(default_factory=list)

    @property
    def detections(self) -> pipeline_pb2.Regions | None:
        """The first event of the first detection step that answered."""
        return next((events[0] for events in self.found.values()), None)

    def add(self, response: pipeline_pb2.ProcessResponse) -> None:
        """Take one event down; no region comes twice, and nothing is said twice of one."""
        kind = response.WhichOneof("event")
        assert kind is not None
        self.order.append(kind)
        if kind == "source_ready":
            self.ready = response.source_ready
        elif kind == "regions":
            self.found.setdefault(response.regions.step, []).append(response.regions)
            for region in response.regions.regions:
                assert region.id not in self.regions, "a region came twice"
                assert not region.HasField("parent_id") or region.parent_id in self.regions, "before its parent"
                self.regions[region.id] = region
        elif kind == "values":
            self._add_values(response.values)
        elif kind == "done":
            self.done = response.done
        elif kind == "failed":
            self.error = response.failed.error

    def _add_values(self, values: pipeline_pb2.Values) -> None:
        self.models.add(values.model)
        for item in values.values:
            if values.subject == pipeline_pb2.SUBJECT_PAGE:
                place = f"{values.step}/{values.page}" if values.page else values.step
                assert place not in self.page_values, "something was said twice of a page"
                self.page_values[place] = item
            elif values.subject == pipeline_pb2.SUBJECT_SOURCE:
                assert values.step not in self.source_values, "something was said twice of the source"
                self.source_values[values.step] = item
            else:
                key = (values.step, item.region_id)
                assert key not in self.values, "something was said twice of a region"
                self.values[key] = item
                if item.HasField("error"):
                    self.region_errors[item.region_id] = item.error
                elif item.HasField("text"):
                    self.texts[item.text.text] += 1

    @property
    def finished(self) -> bool:
        """Whether it ended, exactly once."""
        return self.order.count("done") + self.order.count("failed") == 1 and self.order[-1] in ("done", "failed")


class Cluster:
    """Starts the stages and the orchestrator on entering, and stops them on leaving.

    Args:
        detectors, readers: replicas of the default stages, used unless the options say where a stage is.
        stages: replicas of further stages, by name.
        pipelines: `[pipelines.NAME]` tables.
        apis: `[api.NAME]` tables.
        options: keys of `[orchestrator]`.
    """

    def __init__(
        self,
        detectors: Sequence[FakeDetection] | None = None,
        readers: Sequence[FakeRecognition] | None = None,
        *,
        stages: Mapping[str, Sequence[FakeDetection | FakeRecognition]] | None = None,
        pipelines: Mapping[str, Mapping[str, Any]] | None = None,
        apis: Mapping[str, Mapping[str, Any]] | None = None,
        environment: Mapping[str, str] | None = None,
        service: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.detection = [FakeServer(stage) for stage in (detectors if detectors is not None else [FakeDetection()])]
        self.recognition = [FakeServer(stage) for stage in (readers if readers is not None else [FakeRecognition()])]
        self.named = {name: [FakeServer(stage) for stage in fakes] for name, fakes in (stages or {}).items()}
        self._tables: dict[str, Any] = {"pipelines": pipelines or {}}
        self._apis = {name: ApiConfig.model_validate(table) for name, table in (apis or {}).items()}
        self._environment = environment or {}
        self._service_options = dict(service or {})
        self._options = {
            "port": 0,
            "operations_port": 0,
            "http": {"enabled": False},
            "drain_notice_s": 0,
            "drain_grace_s": 1,
            **options,
        }

    async def __aenter__(self) -> Self:
        for name, servers in (("detection", self.detection), ("recognition", self.recognition)):
            addresses = [await server.start() for server in servers]
            # Port 9 discards: nobody serves there, as with a stage that is scaled to zero.
            self._options.setdefault(name, ",".join(addresses) or "127.0.0.1:9")
        tables: dict[str, Any] = self._tables | {"stages": {}}
        for name, servers in self.named.items():
            addresses = [await server.start() for server in servers]
            tables["stages"][name] = {"kind": servers[0].kind, "target": ",".join(addresses)}
        config = OrchestratorConfig.model_validate(self._options)
        self.service = OrchestratorService(
            config, self._apis, self._environment, tables=tables, **self._service_options
        )
        self.server = Server(self.service, config)
        await self.server.start()
        self.channel = self.connect()
        self.stub = pipeline_pb2_grpc.PipelineServiceStub(self.channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.channel.close()
        await self.server.stop()
        named = [server for servers in self.named.values() for server in servers]
        for server in (*self.detection, *self.recognition, *named):
            await server.stop()

    def connect(self) -> grpc.aio.Channel:
        """A channel of another client."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 * 2**20)]
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.server.port}", options=options)

    async def process(
        self, *sources: pipeline_pb2.Source, timeout_s: float = 20, pipeline: str = "", **options: Any
    ) -> dict[str, SourceEvents]:
        """Run one job and take its events down; checks that it ended as the contract says."""
        request = pipeline_pb2.ProcessRequest(
            sources=sources, options=pipeline_pb2.ProcessOptions(**options), pipeline=pipeline
        )
        call = self.stub.Process(request, timeout=timeout_s)
        return (await account(call))[request.job_id or None]


async def account(
    events: AsyncIterable[pipeline_pb2.ProcessResponse],
) -> dict[str | None, dict[str, SourceEvents]]:
    """Take down all events of a stream, by job and source. A single job without a name is under None as well."""
    jobs: dict[str | None, dict[str, SourceEvents]] = {}
    over: Counter[str] = Counter()
    async for response in events:
        assert not over[response.job_id], "an event came after job_done"
        sources = jobs.setdefault(response.job_id, {})
        if response.WhichOneof("event") == "job_done":
            over[response.job_id] += 1
            done = sum(source.done is not None for source in sources.values())
            assert (done, len(sources) - done) == (response.job_done.succeeded, response.job_done.failed)
        else:
            sources.setdefault(response.source_id, SourceEvents()).add(response)
    assert set(over) == set(jobs), "a job has no job_done"
    if len(jobs) == 1:
        jobs[None] = next(iter(jobs.values()))
    return jobs
