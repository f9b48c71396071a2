"""The detection server as the runtime sees it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import grpc.aio
from prometheus_client import CollectorRegistry
from sluiceway_runtime import cores, devices, weights
from sluiceway_runtime.account import MemoryBudget
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.images.limits import DEFAULT_MAX_PIXELS
from sluiceway_runtime.inference import SERVICE, Models, add_inference
from sluiceway_runtime.inference.port import InferencePort
from sluiceway_runtime.logs import LogStyle
from sluiceway_runtime.metrics.pool import show_pool
from sluiceway_runtime.own_process import answer_of
from sluiceway_runtime.pool import Placement, Pool, PoolLimits, WorkerSpec, queue_items_for
from sluiceway_runtime.recorder import Recorder
from sluiceway_runtime.server.main import Installation
from sluiceway_runtime.stories import SERVICE as STORIES
from sluiceway_runtime.stories import add_stories

from sluiceway_detection.backends import precision
from sluiceway_detection.backends.base import require_trust, resolve_backend
from sluiceway_detection.config import KIND, DetectionConfig
from sluiceway_detection.front.identity import Identity, group_of
from sluiceway_detection.front.inference import DetectionInference
from sluiceway_detection.front.servicer import DetectionServicer, add_to_server
from sluiceway_detection.models.thresholds import IMAGENET_PIXELS, YOLO_PIXELS, thresholds_of
from sluiceway_detection.worker import device_handler
from sluiceway_detection.worker.handler import FACTORY, DetectionFacts, WorkerSettings

__all__ = ["DetectionService"]

log = logging.getLogger(__name__)

# Of the default stage; the section of another one is `stages.NAME`.
_KEY = re.compile(rf"(?<![\w.]){KIND}\.(?=[a-z_]+)")
NAME = "sluiceway.detection.v1.DetectionService"
# On a GPU: one batch is computed, the next one decoded or on its way there, and one more waits for the decoders.
GPU_CREDITS = 3
GPU_BATCH = 16
# Decoding keeps the host busy where the device computes: a GPU takes in what a dozen cores decode. The threads of one
# Python wait for each other long before that, so two processes share them.
GPU_HOST_THREADS = 12
GPU_WORKERS = 2
# Of compiled graphs, six at the first start, each taking the compiler up to a minute. Later starts take seconds.
GPU_START_TIMEOUT_S = 900.0


class DetectionService:
    """Owns the worker pool; implements `sluiceway_runtime.server.app.Service`.

    Args:
        config: of this stage.
        installation: its table `models` says whether missing weights may be downloaded (`auto_pull`). Without the name
            of a stage this is the default one.

    Attributes:
        stage: name of the stage, by which logs and metrics know it.
        http: the port of the Open Inference Protocol; None until registered.
        pool: None until started.
        facts: what the workers loaded; None until started.
        identity: of the weights; None until started.
        group: names the version, see `group_of`; empty until started.
        precision_reason: why this arithmetic.
    """

    names: tuple[str, ...] = (NAME, SERVICE, STORIES)

    def __init__(self, config: DetectionConfig, installation: Installation) -> None:
        self._config = config
        self._auto_pull = bool(installation.models.auto_pull)
        self._security = installation.security
        self._shares_ports = installation.shares_ports
        self._budget = MemoryBudget(config.queue_bytes)
        self._registry: CollectorRegistry | None = None
        self.http: InferencePort | None = None
        self._recorder = Recorder()
        self.stage = installation.stage or KIND
        self._section = KIND if self.stage == KIND else f"stages.{self.stage}"
        self.pool: Pool | None = None
        self.facts: DetectionFacts | None = None
        self.identity: Identity | None = None
        self.group = ""
        self.precision_reason = "configured"

    def use_recorder(self, recorder: Recorder) -> None:
        """Note there in which batches requests were."""
        self._recorder = recorder

    def use_budget(self, budget: MemoryBudget) -> None:
        """Count bodies that come by HTTP in this budget, as requests of gRPC are; called before `register`."""
        self._budget = budget

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicers: the stage's own and the Open Inference Protocol's."""
        servicer = DetectionServicer(self, self._config)
        add_to_server(servicer, server)
        inference = DetectionInference(self, servicer, stage=self.stage)
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
        """Find the weights, choose the arithmetic, start the workers and have them warmed.

        Raises:
            StartupError: weights, backend, device or precision do not fit, or a worker cannot start.
        """
        try:
            await self._start()
        except StartupError as error:
            if self.stage == KIND:
                raise
            # Whoever finds a fault, often a worker, names the key of the default stage.
            raise StartupError(_KEY.sub(f"stages.{self.stage}.", str(error))) from error
        if self.http is not None:
            await self.http.start()

    async def _start(self) -> None:
        config = self._config
        # It may have to ask a process that imports torch.
        found = await asyncio.to_thread(devices.resolve, config.device, least_free_bytes=devices.ROOMY_BYTES)
        own = config.detector is None and config.backend in ("auto", "torch")
        placements = cores.plan(
            config, found, host_threads_max=GPU_HOST_THREADS, per_device_max=GPU_WORKERS if own else 1
        )
        settings, identity = await asyncio.to_thread(self._settings)
        settings = await self._with_precision(settings, placements[0])
        on_gpu = placements[0].device != "cpu"
        settings = replace(settings, max_batch=config.max_batch or (GPU_BATCH if on_gpu else 1))
        credits_each = GPU_CREDITS if on_gpu else 1
        factory = FACTORY
        if on_gpu and settings.weights is not None:
            spec = settings.backend_spec(placements[0].device, placements[0].threads)
            if resolve_backend(settings.backend, spec.weights, spec.device) == "torch":
                factory = device_handler.FACTORY
                sharing = max(Counter(placement.device for placement in placements).values())
                settings = replace(settings, overlap=GPU_CREDITS, workers_on_device=sharing)
        if config.decode == "gpu" and factory != device_handler.FACTORY:
            raise StartupError(
                f"detection.decode: gpu is for models that torch computes on a GPU, and this one is computed on "
                f"{placements[0].device} otherwise; use auto or cpu"
            )
        pool = Pool(
            WorkerSpec(
                factory,
                settings.mapping(),
                placements,
                credits=credits_each,
                overlap=settings.overlap,
                log=LogStyle(self.stage, config.log_level, config.log_format),
            ),
            PoolLimits(
                max_batch=settings.max_batch,
                # A batch is decoded as a whole: it has no more pixels than one image may have. Where only small images
                # are let in, it is as full as by default.
                max_batch_cost=max(config.max_image_pixels, DEFAULT_MAX_PIXELS),
                queue_items=queue_items_for(config.queue_items, len(placements) * credits_each * settings.max_batch),
                queue_bytes=config.queue_bytes,
                batch_timeout_s=config.batch_timeout_s,
                start_timeout_s=self._start_timeout_s(on_gpu=on_gpu),
                worker_memory_mb=config.worker_memory_mb,
            ),
            name=self.stage,
            journal=self._recorder.batches.over,
        )
        self.pool = pool
        if self._registry is not None:
            show_pool(self.stage, pool, self._registry)
        await pool.start()
        facts = pool.facts[0]["detection"]
        assert isinstance(facts, DetectionFacts)
        if config.scale not in (None, "fast") and not facts.scales:
            raise StartupError(
                f"detection.scale: {config.scale} is for models of boxes or maps; this one knows fast alone"
            )
        self.identity, self.facts = identity, facts
        self.group = group_of(identity, facts.classes, facts.crop_longest_px)
        self.precision_reason = facts.precision_reason or self.precision_reason
        log.info(
            "%s: %s %s on %s (%s), inputs %s, files decoded on the %s%s",
            identity.name,
            facts.backend,
            facts.precision,
            facts.device,
            self.precision_reason,
            _inputs_in_words(facts),
            facts.decode.upper(),
            f" ({facts.decode_reason})" if facts.decode_reason else "",
        )

    def ready(self) -> bool:
        """Whether a worker can take images."""
        return self.pool is not None and self.facts is not None and self.pool.able

    def status(self) -> Mapping[str, Any]:
        """Model and workers, for operators."""
        facts, identity = self.facts, self.identity
        if self.pool is None or facts is None or identity is None:
            return {"model": None, "workers": []}
        return {
            "model": {
                "name": identity.name,
                "version": identity.version,
                "weights_sha256": identity.weights_sha256,
                "group": self.group,
                "backend": facts.backend,
                "precision": facts.precision,
                "precision_reason": self.precision_reason,
                "device": facts.device,
                "decode": facts.decode,
                "decode_reason": facts.decode_reason,
                "shapes": [list(shape) for shape in facts.shapes],
            },
            "workers": [
                {"index": worker.index, "pid": worker.pid, "state": worker.state.value, "items": worker.items}
                | _threads_of(worker.pid, self.pool.facts)
                for worker in self.pool.statistics().workers
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

    def _settings(self) -> tuple[WorkerSettings, Identity]:
        config = self._config
        settings = WorkerSettings(
            detector=config.detector,
            backend=config.backend,
            precision=None if config.precision == "auto" else config.precision,
            image_size_px=config.image_size,
            shapes=config.shapes,
            max_image_bytes=config.max_image_bytes,
            max_image_pixels=config.max_image_pixels,
            max_crop_bytes=config.max_crop_bytes,
            documents=config.documents,
            decode=config.decode,
        )
        if config.detector is not None:
            return settings, Identity(config.detector, config.version, "")
        found = weights.resolve(config.model, kind=KIND, auto_pull=self._auto_pull)
        allowed = found.path.name in config.allow_pickle
        require_trust(found.path, allowed=allowed)
        identity = Identity(found.name, config.version or found.version, found.sha256)
        known = thresholds_of(found.path, found.metadata)
        if config.pixels is not None:
            known = known._replace(pixels=IMAGENET_PIXELS if config.pixels == "imagenet" else YOLO_PIXELS)
        known = known._replace(classes=config.classes)
        return replace(settings, weights=str(found.path), allow_checkpoint=allowed, known=known), identity

    def _start_timeout_s(self, *, on_gpu: bool) -> float:
        """As configured; on a GPU, the default leaves time for the compiler."""
        if on_gpu and "start_timeout_s" not in self._config.model_fields_set:
            return GPU_START_TIMEOUT_S
        return self._config.start_timeout_s

    async def _with_precision(self, settings: WorkerSettings, placement: Placement) -> WorkerSettings:
        """Decide once, for all workers; see `precision`."""
        if settings.weights is None:
            return settings
        spec = settings.backend_spec(placement.device, placement.threads)
        if resolve_backend(settings.backend, spec.weights, placement.device) != "openvino":
            return settings
        choice = precision.settled(spec)
        if choice is None:
            answer = await answer_of(
                precision.command(spec, placement.cores),
                what="trying the model",
                timeout_s=self._config.start_timeout_s,
                key="detection.start_timeout_s",
            )
            choice = precision.Choice(**answer)
        self.precision_reason = choice.reason
        return replace(settings, precision=choice.precision)


def _inputs_in_words(facts: DetectionFacts) -> str:
    if facts.any_shape:
        return f"as the images are, at most {facts.image_sizes[0]} px"
    return ", ".join(f"{height}x{width}" for height, width in facts.shapes) or "as the detector likes"


def _threads_of(pid: int | None, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Cores and threads of one worker: as granted, as the libraries say, and as seen busy at its start."""
    own = next((item for item in facts if item.get("process", {}).get("pid") == pid), None)
    if own is None:
        return {}
    process, use = own["process"], own.get("thread_use")
    return {
        "cores": list(process["cores"]),
        "pinned": process["pinned"],
        "threads": process["threads"],
        "threads_busy": use.busy if use is not None else None,
        "thread_caps": dict(process["thread_caps"]),
    }
