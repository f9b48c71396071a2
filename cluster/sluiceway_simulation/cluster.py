"""A whole cluster in memory: orchestrators, replicas of stages by name, and what happens to them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sluiceway_detection.config import DetectionConfig
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.apis import ApiConfig
from sluiceway_orchestrator.service import OrchestratorService
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.errors import StartupError

from sluiceway_simulation.clients import Client, Stream
from sluiceway_simulation.machine import Machine
from sluiceway_simulation.network.network import Network
from sluiceway_simulation.network.wire import Wire
from sluiceway_simulation.stages.process import Process
from sluiceway_simulation.stages.service import DetectionService, RecognitionService, StagePlan, StageService

__all__ = ["Cluster", "ClusterPlan"]

# After a failed start.
START_AGAIN_S = 1.0
_PORTS = {"detection": 50052, "recognition": 50053}


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What a cluster is made of.

    Attributes:
        stages: by name, the kind of each and what its replicas are made of.
        replicas: of each stage at the start.
        orchestrator: keys of `[orchestrator]`.
        tables: further tables of the configuration (`pipelines`).
        apis: `[api.NAME]` tables.
        wire: the network.
        cores: of the one machine on which all of it runs; None where each worker has its own.
    """

    stages: Mapping[str, tuple[str, StagePlan]]
    replicas: Mapping[str, int]
    orchestrators: int = 1
    orchestrator: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)
    apis: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    wire: Wire = field(default_factory=Wire)
    cores: int | None = None


class _Orchestrator(OrchestratorService):
    """The real one; its process has no workers that could vanish with it."""

    def vanish(self) -> None:
        """Nothing."""


class Cluster:
    """Lives within one simulated loop, from `start` to `stop`.

    Attributes:
        versions: of each stage, that new replicas serve.
        replicas: of each stage, processes that its name stands for.
        gone: processes that were killed or told to stop.
        faults: what must never happen, and did.
        machine: on which all of it runs; None where each worker has cores of its own.
    """

    def __init__(
        self, plan: ClusterPlan, seed: int, note: Callable[[str], None] | None = None, *, watched: bool = False
    ) -> None:
        """Make one.

        Args:
            plan: what it is made of.
            seed: of all chance.
            note: told of every message and start; costs time.
            watched: whether every step of the pools is looked at for faults, which costs time as well.
        """
        self.plan = plan
        self.network = Network(plan.wire, random.Random(f"{seed}/network"), note)
        self.versions = dict.fromkeys(plan.stages, 1)
        self.replicas: dict[str, list[Process]] = {name: [] for name in plan.stages}
        self.orchestrators: list[Process] = []
        self.gone: list[Process] = []
        self.faults: list[str] = []
        self.machine = None if plan.cores is None else Machine(plan.cores)
        self._seed = seed
        self._made = 0
        self._note = note
        self._watched = watched
        # Of every server. Where nobody looks for faults, nobody asks what became of a request either.
        self._common = {"reflection": False, **({} if watched else {"remember_requests": 0})}
        self._watches: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start everything; returns when the orchestrators take calls. Stages come when they are ready."""
        for name in self.plan.stages:
            self.network.names[name] = []
            for _ in range(self.plan.replicas[name]):
                self.add(name)
        for _ in range(self.plan.orchestrators):
            process = self._orchestrator()
            process.start()
            await process.started()
            self.orchestrators.append(process)

    async def stop(self) -> None:
        """Stop everything, the orchestrators first."""
        for watch in self._watches:
            watch.cancel()
        for process in self.orchestrators:
            process.terminate()
        for process in self.orchestrators:
            await process.ended()
        for name, processes in self.replicas.items():
            while processes:
                self.terminate(name, processes[-1])
        for process in self.gone:
            await process.ended()

    @property
    def max_jobs(self) -> int:
        """Of one orchestrator."""
        return int(self.plan.orchestrator.get("max_jobs", OrchestratorConfig.model_fields["max_jobs"].default))

    def client(self, name: str, orchestrator: int = 0) -> Client:
        """A client of an orchestrator."""
        return Client(self.network, self.orchestrators[orchestrator].address, name)

    def stream(self, name: str, orchestrator: int = 0) -> Stream:
        """A client of an orchestrator that has one call for all its jobs."""
        return Stream(self.network, self.orchestrators[orchestrator].address, name)

    def add(self, stage: str) -> Process:
        """Start one more replica, of the version that the stage is at."""
        return self._begin(stage, self._stage(stage))

    def _begin(self, stage: str, process: Process) -> Process:
        self.replicas[stage].append(process)
        process.start()
        self._tell_names(stage)
        watch = asyncio.create_task(self._supervise(stage, process), name=f"supervise {process.address}")
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        return process

    async def _supervise(self, stage: str, process: Process) -> None:
        """A server that cannot start exits, and whoever looks after it starts it again."""
        try:
            await process.started()
        except StartupError:
            if self._note is not None:
                self._note(f"{process.address} cannot start")
            if process in self.replicas[stage]:
                self.kill(stage, process)
                await asyncio.sleep(START_AGAIN_S)
                self.add(stage)

    def terminate(self, stage: str, process: Process) -> None:
        """Take a replica out of the name, and have it drain."""
        self._leave(stage, process)
        process.terminate()

    def kill(self, stage: str, process: Process) -> None:
        """Its process is gone at once; the name forgets it."""
        self._leave(stage, process)
        process.kill()

    def kill_in_place(self, stage: str, process: Process) -> Callable[[], None]:
        """Its process is gone at once, and its name keeps the address; what is returned starts another there."""
        self.replicas[stage].remove(process)
        self.gone.append(process)
        process.kill()

        def revive() -> None:
            self._begin(stage, self._stage(stage, process.host))

        return revive

    def leftovers(self) -> list[str]:
        """What should be nothing once all jobs have ended, and is not."""
        found = []
        for process in (*self.orchestrators, *self.gone, *(p for group in self.replicas.values() for p in group)):
            budget = process.server.budget
            if budget.used_bytes or budget.waiting:
                found.append(f"{process}: {budget}")
            service = process.service
            if isinstance(service, _Orchestrator):
                found += _left_in(process, service)
            elif (owed := service.leftovers) and not process.killed:
                found.append(f"{process}: {owed}")
        return found

    def _leave(self, stage: str, process: Process) -> None:
        self.replicas[stage].remove(process)
        self.gone.append(process)
        self._tell_names(stage)

    def _tell_names(self, stage: str) -> None:
        self.network.names[stage] = [process.host for process in self.replicas[stage]]

    def _chance(self, purpose: str) -> random.Random:
        return random.Random(f"{self._seed}/{purpose}")

    def _stage(self, stage: str, host: str | None = None) -> Process:
        kind, plan = self.plan.stages[stage]
        host = host or self.network.new_host()
        self._made += 1
        own = {"port": _PORTS[kind], "drain_notice_s": 0.5, **self._common}
        options: dict[str, Any] = {**own, **plan.options}
        options |= {"queue_items": plan.limits.queue_items, "queue_bytes": plan.limits.queue_bytes}
        facts: dict[str, Any] = {
            "name": stage,
            "version": self.versions[stage],
            "chance": self._chance(f"{stage} {self._made}"),
            "watched": self.faults.append if self._watched else None,
        }
        if kind == "detection":
            detection = DetectionConfig.model_validate(options)
            return self._process(DetectionService(plan, detection, **facts), detection, host)
        reading = RecognitionConfig.model_validate(options)
        return self._process(RecognitionService(plan, reading, **facts), reading, host)

    def _process(self, service: StageService, config: ServerConfig, host: str) -> Process:
        service.bench.machine = self.machine
        return Process(service, config, self.network, host)

    def _orchestrator(self) -> Process:
        plan = self.plan
        targets = {name: f"dns:///{name}:{_PORTS[kind]}" for name, (kind, _) in plan.stages.items()}
        further = {
            name: {"kind": kind, "target": targets[name]}
            for name, (kind, _) in plan.stages.items()
            if name not in _PORTS
        }
        config = OrchestratorConfig.model_validate(
            {
                "http": {"enabled": False},
                "memory_bytes": 512 * 2**20,
                **self._common,
                **{name: target for name, target in targets.items() if name in _PORTS},
                **plan.orchestrator,
            }
        )
        service = _Orchestrator(
            config,
            {name: ApiConfig.model_validate(table) for name, table in plan.apis.items()},
            {},
            tables={"pipelines": {}, **plan.tables, "stages": further},
            stage_lookup=self.network.look_up,
            dial=self.network.dial,
        )
        return Process(service, config, self.network, self.network.new_host())


def _left_in(process: Process, service: OrchestratorService) -> list[str]:
    status = service.status()
    found = []
    if status["jobs"] or status["sources_waiting"]:
        found.append(f"{process}: {status['jobs']} jobs run, {status['sources_waiting']} sources wait")
    for stage in service.stages.values():
        if stage.backlog_items:
            found.append(f"{process}: {stage}")
        found += [
            f"{process}: {replica} with {replica.leases} leases"
            for replica in stage.replicas
            if replica.occupancy.in_flight or replica.leases
        ]
    return found
