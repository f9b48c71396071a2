"""The orchestrator as a service of the runtime: makes the parts and joins them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import grpc.aio
from prometheus_client import CollectorRegistry
from sluiceway_runtime.account import MemoryBudget
from sluiceway_runtime.calling.channel import open_channel
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.inference import SERVICE, Models, add_inference
from sluiceway_runtime.inference.http_routes import OpenInference
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.recorder import Recorder
from sluiceway_runtime.release import release
from sluiceway_runtime.server.security import Security
from sluiceway_runtime.stories import SERVICE as STORIES
from sluiceway_runtime.stories import serve_stories
from sluiceway_runtime.tracing import Tracer
from sluiceway_runtime.watch import Sampler, ServerSample

from sluiceway_orchestrator.backlog import Ageing
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.apis import ApiConfig
from sluiceway_orchestrator.convert.describe import description
from sluiceway_orchestrator.convert.job import JobLimits
from sluiceway_orchestrator.convert.specs import misfits
from sluiceway_orchestrator.explain.clients import StoryTeller
from sluiceway_orchestrator.explain.traces import trace_job
from sluiceway_orchestrator.fetch.fetcher import Fetcher
from sluiceway_orchestrator.fetch.guard import LookUp, system_look_up
from sluiceway_orchestrator.gate import Gate
from sluiceway_orchestrator.http.convert import message_to_json
from sluiceway_orchestrator.http.port import HttpPort
from sluiceway_orchestrator.inference import PipelineInference
from sluiceway_orchestrator.installation import Layout, layout_of
from sluiceway_orchestrator.jobs import Jobs
from sluiceway_orchestrator.metrics.collector import OrchestratorCollector
from sluiceway_orchestrator.pipelines.binding import Binder
from sluiceway_orchestrator.pipelines.executor import Executor
from sluiceway_orchestrator.plan import Pipeline
from sluiceway_orchestrator.scaler.port import ScalerPort
from sluiceway_orchestrator.scaler.reading import Reading
from sluiceway_orchestrator.servicer import PipelineServicer
from sluiceway_orchestrator.stages.detection import DetectionClient, DetectionWire
from sluiceway_orchestrator.stages.pressure import Pressures
from sluiceway_orchestrator.stages.recognition import RecognitionClient, RecognitionWire
from sluiceway_orchestrator.stages.resolver import Lookup, system_lookup
from sluiceway_orchestrator.stages.settings import StageSettings
from sluiceway_orchestrator.stages.stage import Stage
from sluiceway_orchestrator.story import JobLog
from sluiceway_orchestrator.watch.clients import ClusterSampler
from sluiceway_orchestrator.watch.samples import Work
from sluiceway_orchestrator.watch.servicer import SERVICE as WATCH
from sluiceway_orchestrator.watch.servicer import add_watch
from sluiceway_orchestrator.watch.watching import Watching

__all__ = ["OrchestratorService"]

log = logging.getLogger(__name__)

_WIRES: Mapping[str, Callable[[], Any]] = {"detection": DetectionWire, "recognition": RecognitionWire}
# For whoever makes a service without a server, which has one from its configuration.
DEFAULT_BUDGET_BYTES = 512 * 2**20


class OrchestratorService:
    """Everything that the orchestrator is made of, from `start` to `close`.

    It is ready as soon as it listens: stages may come later (from zero replicas), and work waits for them.

    Args:
        config: its section.
        apis: tables of `[api.NAME]`.
        environment: variables, for secrets and configuration.
        tables: the whole configuration.
        security: with what it calls stages, and who may call it over HTTP.
        stage_lookup: names of stages to addresses.
        url_look_up: likewise, of URLs.
        dial: opens the channel to an address of a stage, whose certificate is for the name given with it.
    """

    names: tuple[str, ...] = ("sluiceway.pipeline.v1.PipelineService", WATCH, STORIES, SERVICE)

    def __init__(
        self,
        config: OrchestratorConfig,
        apis: Mapping[str, ApiConfig] | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        tables: Mapping[str, Any] | None = None,
        security: Security | None = None,
        stage_lookup: Lookup = system_lookup,
        url_look_up: LookUp = system_look_up,
        dial: Callable[[str, str | None], grpc.aio.Channel] | None = None,
    ) -> None:
        self._config = config
        self._started = False
        self._security = security
        self._stage_lookup = stage_lookup
        self._dial = dial or self._open_channel
        self.fetcher = Fetcher(config, apis or {}, environment or {}, look_up=url_look_up)
        self._layout: Layout = layout_of(config, tables or {}, environment or {}, self.fetcher.apis)
        self.stages = {name: self._stage(name) for name in self._layout.used_stages}
        self._pressures = Pressures(self.stages.values())
        self.scaler = ScalerPort(config, self.wanted, stage_lookup)
        self._gate = Gate(
            config.max_sources_in_flight,
            config.max_sources_per_client,
            Ageing(config.age_normal_s, config.age_bulk_s),
        )
        self._limits = JobLimits(
            self._layout.pipelines,
            config.default_pipeline,
            max_sources=config.max_sources,
            interactive=config.interactive_clients,
        )
        self._problems: frozenset[str] = frozenset()
        self.recorder = Recorder()
        self._tracer: Tracer | None = None
        self.story_log = JobLog()
        self._teller = StoryTeller(lambda: self.recorder, lambda: self.story_log, self.stages)
        sampler = ClusterSampler(self.stages.values(), self.fetcher.apis, work=self._work, own=self._own_sample)
        self._watching = Watching(sampler)
        self.use_budget(MemoryBudget(DEFAULT_BUDGET_BYTES))

    def use_recorder(self, recorder: Recorder) -> None:
        """Remember there what became of requests; called before `use_budget`."""
        self.recorder = recorder
        self.story_log = JobLog(recorder.most)

    def use_tracer(self, tracer: Tracer) -> None:
        """Tell it of jobs whose traces are recorded; called between the other two."""
        self._tracer = tracer
        self.story_log = JobLog(self.recorder.most, tracer=tracer, tell=partial(trace_job, tracer))

    def use_budget(self, budget: MemoryBudget) -> None:
        """Hold what there is to hold in this budget; called before `start`."""
        config = self._config
        self.budget = budget
        self.use_samples(Sampler(state=str, budget=budget).sample)
        self.executor = Executor(
            pipelines=self._layout.pipelines,
            fetcher=self.fetcher,
            binder=Binder(self.stages),
            detectors={name: DetectionClient(stage) for name, stage in self._of_kind("detection")},
            readers={name: RecognitionClient(stage) for name, stage in self._of_kind("recognition")},
            gate=self._gate,
            budget=budget,
            max_crops_per_call=config.max_crops_per_call,
            saturated=self._is_saturated,
            longest_s=None if config.latency_bound_ms is None else config.latency_bound_ms / 1000,
            jobs=self.story_log,
        )
        self._jobs = Jobs(config, self.executor, budget)
        self._servicer = PipelineServicer(config, self._jobs, self._limits, budget, self._description)
        self._inference = PipelineInference(self._jobs, self._limits, self.ready)
        self._models = Models(self._inference)
        self.http = HttpPort(
            config,
            config.http,
            limits=self._limits,
            budget=budget,
            run=self._jobs.run,
            describe=lambda: message_to_json(self._description()),
            inference=OpenInference(self._inference, self._models),
            security=self._security,
            recorder=self.recorder,
            tracer=self._tracer,
            watching=self._watching,
        )

    def use_samples(self, sample: Callable[[], ServerSample]) -> None:
        """What the server says of itself to whoever watches."""
        self._sample = sample

    async def start(self) -> None:
        """Open connections. Raises StartupError."""
        await self.fetcher.start()
        for stage in self.stages.values():
            await stage.start()
        self._pressures.start()
        await self.http.start()
        await self.scaler.start()
        self._started = True

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicer."""
        self._servicer.register(server)
        add_watch(server, self._watching)
        serve_stories(server, self._teller.tell)
        add_inference(server, self._inference, self._config, self._models)

    def collectors(self, registry: CollectorRegistry) -> None:
        """Add the metrics."""
        stages = self.stages.values()
        registry.register(OrchestratorCollector(stages, self._gate, lambda: self._jobs.running, self._pressures.of))
        for metrics in (self.executor.metrics, self.fetcher.metrics, self.http.metrics):
            metrics.register(registry)

    def ready(self) -> bool:
        """Whether it takes work now. What running stages show to be wrong with a pipeline is logged as it is found."""
        self._look_at_problems()
        return self._started

    def class_of(self, client: str, asked: Priority) -> Priority:
        """The class in which a client is served that asks for one."""
        return self._limits.class_of(client, asked)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with pipelines and only running stages can tell."""
        descriptions = {
            name: members[0][0].description for name, stage in self.stages.items() if (members := stage.members)
        }
        return tuple(text for pipeline in self._layout.pipelines.values() for text in misfits(pipeline, descriptions))

    def status(self) -> Mapping[str, Any]:
        """What `/statusz` shows."""
        return {
            "jobs": self._jobs.running,
            "sources_waiting": self._gate.waiting,
            "pipelines": {
                pipeline.name: [step.name for step in pipeline.steps] for pipeline in self._layout.pipelines.values()
            },
            "problems": self.problems,
            "stages": {
                stage.name: {
                    "target": stage.target.text,
                    "backlog_items": stage.backlog_items,
                    "groups": {group.name: len(members) for group, members in stage.members},
                    "replicas": [
                        {
                            "address": replica.address,
                            "ready": replica.ready,
                            "in_flight": replica.occupancy.in_flight,
                            "sent": replica.occupancy.sent,
                        }
                        for replica in stage.replicas
                    ],
                    "leaving": [replica.address for replica in stage.leaving],
                }
                for stage in self.stages.values()
            },
        }

    def refuse(self) -> None:
        """Take no more jobs over HTTP, and let those who watch ask another one."""
        self.http.refuse()
        self.scaler.refuse()
        self._watching.refuse()

    async def drain(self, grace_s: float) -> bool:
        """Finish the jobs that came in over HTTP; every other belongs to a call, and those have ended."""
        return await self.http.drain(grace_s)

    async def close(self) -> None:
        """Close every connection."""
        self._started = False
        await self._watching.close()
        await self.scaler.close()
        await self._pressures.close()
        await self.http.close()
        await asyncio.gather(*(stage.close() for stage in self.stages.values()), self.fetcher.close())

    def _stage(self, name: str) -> Stage[Any]:
        config, entry = self._config, self._layout.stages[name]
        settings = StageSettings(
            resolve_interval_s=config.resolve_interval_s,
            initial_window=config.initial_window,
            retry_ratio=config.retry_ratio,
            ageing=Ageing(config.age_normal_s, config.age_bulk_s),
        )
        security = self._security
        return Stage(
            name,
            entry.kind,
            entry.target,
            _WIRES[entry.kind](),
            settings,
            open_channel=self._dial,
            lookup=self._stage_lookup,
            certificates=security.stamp if security is not None else lambda: None,
        )

    def _open_channel(self, target: str, authority: str | None) -> grpc.aio.Channel:
        """A replica is dialled by its address, but its certificate is for the name that all replicas share."""
        return open_channel(
            target, max_message_bytes=self._config.max_message_bytes, security=self._security, authority=authority
        )

    def _of_kind(self, kind: str) -> Iterator[tuple[str, Stage[Any]]]:
        return ((name, stage) for name, stage in self.stages.items() if stage.kind == kind)

    def wanted(self, name: str) -> Reading | None:
        """How much a stage is wanted here. Any job may come to it."""
        stage = self.stages.get(name)
        if stage is None:
            return None
        return Reading(
            round(self._pressures.of(name) * 1000),
            self._jobs.running > 0 or stage.backlog_items > 0,
            sum(replica.ready for replica in stage.replicas),
        )

    def _own_sample(self) -> ServerSample:
        return self._sample()

    def _work(self) -> Work:
        metrics, gate = self.executor.metrics, self._gate
        durations = metrics.durations.counts()
        return Work(
            done=sum(durations),
            failed=metrics.ended_otherwise(),
            durations=durations,
            jobs=self._jobs.running,
            jobs_limit=self._jobs.limit,
            working=gate.working,
            working_limit=gate.total,
            waiting=gate.waiting,
            waiting_own_share=gate.waiting_own_share,
            wait_ms=gate.waits.oldest_s(monotonic()) * 1000,
            unread=self._jobs.unread(),
        )

    def _is_saturated(self, pipeline: Pipeline) -> bool:
        """Whether every stage of a pipeline is there and one of them has all that it can work on."""
        stages: Iterable[Stage[Any]] = [self.stages[name] for name in pipeline.stages]
        return all(stage.is_there for stage in stages) and any(stage.is_full for stage in stages)

    def _description(self) -> Any:
        return description(
            self._config,
            version=release(),
            stages=self.stages.values(),
            pipelines=self._layout.pipelines,
            apis={name: api.params for name, api in self.fetcher.apis.items()},
            problems=self.problems,
        )

    def _look_at_problems(self) -> None:
        found = frozenset(self.problems)
        for text in sorted(found - self._problems):
            log.warning("%s", text)
        self._problems = found
