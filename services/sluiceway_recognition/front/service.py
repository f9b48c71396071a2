"""The recognition server as the runtime sees it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import grpc.aio
from prometheus_client import CollectorRegistry
from sluiceway_runtime import cores, devices, weights
from sluiceway_runtime.account import MemoryBudget
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.inference import SERVICE, Models, add_inference
from sluiceway_runtime.inference.port import InferencePort
from sluiceway_runtime.logs import LogStyle
from sluiceway_runtime.metrics.pool import show_pool
from sluiceway_runtime.own_process import answer_of
from sluiceway_runtime.pool import Pool, PoolLimits, WorkerSpec, queue_items_for
from sluiceway_runtime.recorder import Recorder
from sluiceway_runtime.server.main import Installation
from sluiceway_runtime.stories import SERVICE as STORIES
from sluiceway_runtime.stories import add_stories

from sluiceway_recognition.backends import library_of, precision
from sluiceway_recognition.backends.batches import GraphSettings
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front.group import group_of
from sluiceway_recognition.front.inference import RecognitionInference
from sluiceway_recognition.front.resolve import plan_models
from sluiceway_recognition.front.servicer import RecognitionServicer, add_to_server
from sluiceway_recognition.plan import ModelPlan
from sluiceway_recognition.types import KIND, ModelFacts
from sluiceway_recognition.worker.handler import FACTORY, worker_config

__all__ = ["RecognitionService"]

log = logging.getLogger(__name__)

# Where much waits: so many crops of all widths hold enough narrow ones to be computed eight at a time. More than this
# would keep the first crop of a batch from its client for the sake of the last.
CPU_BATCH = 32
GPU_BATCH = 128
# One batch that the GPU computes, one that waits for it there, and one between worker and front.
GPU_CREDITS = 3
# A first start compiles graphs; each later one finds them.
GPU_START_TIMEOUT_S = 1800.0
NAME = "sluiceway.recognition.v1.RecognitionService"


class RecognitionService:
    """Owns the worker pool; implements `sluiceway_runtime.server.app.Service`.

    Args:
        config: of this stage.
        installation: its table `models` says whether missing weights may be downloaded (`auto_pull`). Without the name
            of a stage this is the default one.

    Attributes:
        http: the port of the Open Inference Protocol; None until registered.
        pool: None until started.
        stage: name of the stage, by which logs and metrics know it.
        models: what the workers loaded, by name, the default first; empty until started.
        group: names the version of all of them together; empty until started.
    """

    names: tuple[str, ...] = (NAME, SERVICE, STORIES)

    def __init__(self, config: RecognitionConfig, installation: Installation) -> None:
        self._config = config
        self._auto_pull = bool(installation.models.auto_pull)
        self._security = installation.security
        self._shares_ports = installation.shares_ports
        self._budget = MemoryBudget(config.queue_bytes)
        self._registry: CollectorRegistry | None = None
        self.http: InferencePort | None = None
        self._recorder = Recorder()
        self.stage = installation.stage or KIND
        self._section = installation.stages[self.stage].section
        self.pool: Pool | None = None
        self.models: Mapping[str, ModelFacts] = {}
        self.group = ""

    def use_recorder(self, recorder: Recorder) -> None:
        """Note there in which batches requests were."""
        self._recorder = recorder

    def use_budget(self, budget: MemoryBudget) -> None:
        """Count bodies that come by HTTP in this budget, as requests of gRPC are; called before `register`."""
        self._budget = budget

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicers: the stage's own and the Open Inference Protocol's."""
        servicer = RecognitionServicer(self, self._config)
        add_to_server(servicer, server)
        inference = RecognitionInference(self, servicer, stage=self.stage, max_crops=self._config.max_crops)
        models = Models(inference)
        add_inference(server, inference, self._config, models)
        self.http = InferencePort(
            inference,
            models,
            self._config,
            name=self.stage,
            section=self._section,
            budget=self._budget,
            security=self._security,
            recorder=self._recorder,
            shares_port=self._shares_ports,
        )
        add_stories(server, lambda: self._recorder, self.stage)

    def collectors(self, registry: CollectorRegistry) -> None:
        """Have the metrics of the HTTP port shown, and the pool's once there is a pool."""
        self._registry = registry
        if self.http is not None:
            self.http.metrics.register(registry)

    async def start(self) -> None:
        """Look up the weights, start the workers and have them warmed.

        Raises:
            StartupError: see `plan_models`, `devices.resolve` and `Pool.start`.
        """
        config = self._config
        # It may have to ask a process that imports torch.
        found = await asyncio.to_thread(devices.resolve, config.device)
        placements = cores.plan(config, found)
        plans = await asyncio.to_thread(plan_models, config.models, self._find, self._section)
        plans = await self._with_precision(plans, placements[0])
        on_gpu = placements[0].device != "cpu"
        max_batch = config.max_batch or (GPU_BATCH if on_gpu else CPU_BATCH)
        credits_each = GPU_CREDITS if on_gpu else 1
        graphs = GraphSettings(
            batches=(*sorted({batch for batch in config.graph_batches if batch < max_batch}), max_batch),
            max_px=config.max_batch_px,
            compiled=config.compiled_graphs,
            depth=credits_each + 1,
            workers_on_device=max(Counter(placement.device for placement in placements).values()),
        )
        pool = Pool(
            WorkerSpec(
                FACTORY,
                worker_config(plans, config.file_limits, graphs),
                placements,
                credits=credits_each,
                overlap=credits_each,
                log=LogStyle(self.stage, config.log_level, config.log_format),
            ),
            PoolLimits(
                max_batch=max_batch,
                max_batch_cost=config.max_batch_px,
                side_by_side=placements[0].threads if _one_by_one(plans, placements[0].device) else None,
                mixes=on_gpu and all(plan.user_class is None for plan in plans),
                queue_items=queue_items_for(config.queue_items, len(placements) * credits_each * max_batch),
                queue_bytes=config.queue_bytes,
                batch_timeout_s=config.batch_timeout_s,
                start_timeout_s=_start_timeout_s(config, on_gpu=on_gpu),
                worker_memory_mb=config.worker_memory_mb,
            ),
            name=self.stage,
            journal=self._recorder.batches.over,
        )
        self.pool = pool
        if self._registry is not None:
            show_pool(self.stage, pool, self._registry)
        await pool.start()
        self.models = {facts.name: facts for facts in pool.facts[0]["models"]}
        self.group = group_of(self.models.values())
        for facts in self.models.values():
            log.info("%s: %s on %s %s", facts.name, facts.backend, facts.device, facts.precision)
        if self.http is not None:
            await self.http.start()

    def ready(self) -> bool:
        """Whether a worker can take crops."""
        return self.pool is not None and bool(self.models) and self.pool.able

    def status(self) -> Mapping[str, Any]:
        """Models and workers, for operators."""
        workers = self.pool.statistics().workers if self.pool is not None else ()
        return {
            "models": [
                {
                    "name": facts.name,
                    "version": facts.version,
                    "weights_sha256": facts.weights_sha256,
                    "kind": facts.head.value,
                    "backend": facts.backend,
                    "precision": facts.precision,
                    "device": facts.device,
                    "buckets": list(facts.buckets),
                }
                for facts in self.models.values()
            ],
            "workers": [
                {"index": worker.index, "pid": worker.pid, "state": worker.state.value, "items": worker.items}
                for worker in workers
            ],
        }

    def refuse(self) -> None:
        """Take no more by HTTP."""
        if self.http is not None:
            self.http.refuse()

    async def drain(self, grace_s: float) -> bool:
        """Finish what was accepted."""
        ends_s = monotonic() + grace_s
        answered = self.http is None or await self.http.drain(grace_s)
        return answered & (self.pool is None or await self.pool.drain(max(0.0, ends_s - monotonic())))

    async def close(self) -> None:
        """Stop listening, and the workers."""
        if self.http is not None:
            await self.http.close()
        if self.pool is not None:
            await self.pool.close()

    async def _with_precision(self, plans: tuple[ModelPlan, ...], placement: Placement) -> tuple[ModelPlan, ...]:
        """Decide once, for all workers; see `precision`."""
        open_ = precision.undecided(plans, placement.device)
        if not open_:
            return plans
        answers = await answer_of(
            precision.command(open_, placement.cores),
            what="trying the models",
            timeout_s=self._config.start_timeout_s,
            key=f"{self._section}.start_timeout_s",
        )
        chosen = {plan.name: precision.Choice(*answer) for plan, answer in zip(open_, answers, strict=True)}
        for name, choice in chosen.items():
            log.info("%s computes in %s: %s", name, choice.precision, choice.reason)
        return tuple(
            replace(plan, precision=chosen[plan.name].precision) if plan.name in chosen else plan for plan in plans
        )

    def _find(self, name: str) -> weights.Weights:
        return weights.resolve(name, kind=KIND, auto_pull=self._auto_pull)


def _one_by_one(plans: Sequence[ModelPlan], device: str) -> bool:
    """Whether a batch takes as long as its crops; of user code that is not known."""
    return all(plan.user_class is None and library_of(plan, device) == "openvino" for plan in plans)


def _start_timeout_s(config: RecognitionConfig, *, on_gpu: bool) -> float:
    """What the operator says, else what the slowest start can take."""
    said = "start_timeout_s" in config.model_fields_set
    return config.start_timeout_s if said or not on_gpu else GPU_START_TIMEOUT_S
