"""What runs in a worker process of this stage: crops in, checked answers out."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from sluiceway_runtime import cores
from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.errors import ModelFailed, SluicewayError
from sluiceway_runtime.images.limits import ImageLimits
from sluiceway_runtime.pool.handler import Finish
from sluiceway_runtime.pool.payload import Payload
from sluiceway_runtime.ready_graphs import graphs

from sluiceway_recognition.backends.batches import GraphSettings
from sluiceway_recognition.inputs.preprocess import pixels_of
from sluiceway_recognition.plan import ModelPlan
from sluiceway_recognition.types import Answer, CropTask, Head, ModelFacts, TextAnswer
from sluiceway_recognition.worker.heads import answer
from sluiceway_recognition.worker.recognizer import ModelRecognizer, Recognizer, load_model
from sluiceway_recognition.worker.user_code import load_user_recognizer

__all__ = ["FACTORY", "RecognitionHandler", "create", "worker_config"]

FACTORY = "sluiceway_recognition.worker.handler:create"


def worker_config(
    models: Sequence[ModelPlan], limits: ImageLimits, graphs: GraphSettings | None = None
) -> dict[str, Any]:
    """What `create` wants, as the mapping that a pool hands to its workers."""
    return {"models": tuple(models), "limits": limits, "graphs": graphs}


def create(config: Mapping[str, Any]) -> RecognitionHandler:
    """Make the handler of a worker from `worker_config`."""
    return RecognitionHandler(config["models"], config["limits"], config["graphs"])


@dataclass(frozen=True, slots=True)
class _Loaded:
    recognizer: ModelRecognizer | Recognizer
    facts: ModelFacts


_Item = tuple[int, CropTask, NDArray[np.uint8]]
_Placed = list[tuple[int, Payload | SluicewayError]]


class RecognitionHandler:
    """Runs every model of the stage; implements `sluiceway_runtime.pool.handler.OverlappingHandler`."""

    def __init__(self, plans: Sequence[ModelPlan], limits: ImageLimits, graphs: GraphSettings | None = None) -> None:
        self._plans = plans
        self._limits = limits
        self._graphs = graphs
        self._models: dict[str, _Loaded] = {}

    def setup(self, placement: Placement) -> Mapping[str, Any]:
        """Load and warm every model, and hold this process to its cap of threads.

        Returns:
            `{"models": tuple[ModelFacts, ...]}`, in the order of the configuration; on a GPU `graphs` as well, how many
            there are of each kind.

        Raises:
            StartupError: a model cannot be loaded, or more threads compute than may (`cores.verify_threads`).
        """
        # Resizing one crop is too little work to share out, and OpenCV would start a thread for each core.
        cv2.setNumThreads(1)
        for plan in self._plans:
            self._models[plan.name] = _load(plan, placement, self._graphs)
        for model in self._models.values():
            # On a GPU the host only waits; and code of users may take only crops of some kind.
            if placement.device == "cpu" and isinstance(model.recognizer, ModelRecognizer):
                work = partial(_read_widest, model.recognizer)
                cores.verify_threads(work, placement.threads, worker=placement.index)
        facts: dict[str, Any] = {"models": tuple(model.facts for model in self._models.values())}
        return facts if placement.device == "cpu" else facts | {"graphs": graphs()}

    def recognizer(self, name: str) -> ModelRecognizer | Recognizer:
        """What reads the crops of a model; once `setup` has ended."""
        return self._models[name].recognizer

    def run(self, batch: Sequence[Payload]) -> Sequence[Payload | SluicewayError]:
        """Read the crops of a batch; a crop that is no image, or whose result makes no sense, fails alone."""
        return self.launch(batch)()

    def launch(self, batch: Sequence[Payload]) -> Finish:
        """Start a batch. User code cannot overlap: it is called here, and is done when this returns."""
        placed: _Placed = []
        by_model: dict[str, list[_Item]] = {}
        for position, payload in enumerate(batch):
            task: CropTask = payload.meta
            spec = self._models[task.model].recognizer.crop_spec
            try:
                pixels, turned = pixels_of(task, payload.buffers[0], spec, self._limits)
            except SluicewayError as error:
                placed.append((position, error))
            else:
                if turned:
                    task = task._replace(rotation_degrees=90)
                by_model.setdefault(task.model, []).append((position, task, pixels))
        begun = [_begin(self._models[name], items) for name, items in by_model.items()]

        def finish() -> list[Payload | SluicewayError]:
            for answers in begun:
                placed.extend(answers())
            placed.sort(key=_position)
            return [result for _, result in placed]

        return finish


_position = operator.itemgetter(0)


def _read_widest(recognizer: ModelRecognizer) -> None:
    crop = np.zeros((recognizer.crop_spec.height, recognizer.buckets[-1], 3), np.uint8)
    recognizer.launch([crop], [1])()


def _begin(model: _Loaded, items: Sequence[_Item]) -> Callable[[], _Placed]:
    if not isinstance(model.recognizer, ModelRecognizer):
        results = _read(model, model.recognizer, items)
        return lambda: results
    wait = model.recognizer.launch(
        [pixels for _, _, pixels in items],
        [task.top_k for _, task, _ in items],
        [task.words for _, task, _ in items],
        [task.rotation_degrees != 0 for _, task, _ in items],
    )
    asked = [(position, task) for position, task, _ in items]

    def answers() -> _Placed:
        return [
            (position, found if isinstance(found, SluicewayError) else _payload(found, task))
            for (position, task), found in zip(asked, wait(), strict=True)
        ]

    return answers


def _payload(found: Answer, task: CropTask) -> Payload:
    if isinstance(found, TextAnswer):
        turned = (found.rotation_degrees + task.rotation_degrees) % 360
        if not task.characters:
            found = TextAnswer(found.text, found.confidence, (), (), turned, found.words)
        elif turned or found.spans:
            found = found._replace(rotation_degrees=turned, spans=())
    return Payload(found)


def _read(model: _Loaded, recognizer: Recognizer, items: Sequence[_Item]) -> _Placed:
    """Call user code, and check what it returns."""
    readings = recognizer([pixels for _, _, pixels in items])
    if len(readings) != len(items):
        raise ModelFailed(f"the recogniser returned {len(readings)} readings for {len(items)} crops")
    results: _Placed = []
    for (position, task, _), reading in zip(items, readings, strict=True):
        if isinstance(reading, ModelFailed):
            results.append((position, reading))
            continue
        try:
            checked = answer(reading, model.facts.head, model.facts.labels, top_k=task.top_k)
        except ModelFailed as error:
            results.append((position, error))
        else:
            results.append((position, _payload(checked, task)))
    return results


def _load(plan: ModelPlan, placement: Placement, graphs: GraphSettings | None) -> _Loaded:
    if plan.user_class is not None:
        recognizer: ModelRecognizer | Recognizer = load_user_recognizer(plan, placement.device)
    else:
        recognizer = load_model(plan, placement.device, placement.threads, graphs)
    warm = getattr(recognizer, "warm", None)
    if warm is not None:
        warm()
    return _Loaded(recognizer, _facts(plan, recognizer, placement))


def _facts(plan: ModelPlan, recognizer: ModelRecognizer | Recognizer, placement: Placement) -> ModelFacts:
    backend: Literal["openvino", "torch", "user"] = "user"
    size, precision, device = 0, "", placement.device
    if isinstance(recognizer, ModelRecognizer):
        source = recognizer.backend
        backend, precision, device = source.name, source.precision, source.device
        size = source.output_size if plan.head is Head.EMBED else 0
    spec = recognizer.crop_spec
    if plan.crop_spec.classes:
        # What the operator routes here comes before what the class would like.
        spec = replace(spec, classes=plan.crop_spec.classes)
    return ModelFacts(
        name=plan.name,
        version=plan.version,
        weights_sha256=plan.weights_sha256,
        head=plan.head,
        crop_spec=spec,
        buckets=tuple(getattr(recognizer, "buckets", ())),
        labels=tuple(plan.labels or getattr(recognizer, "labels", ())),
        embedding_size=size,
        backend=backend,
        precision=precision,
        device=device,
        upright="ppocr-cls" if plan.upright is not None else "",
        reading=_reading(plan) if plan.own else "",
    )


def _reading(plan: ModelPlan) -> str:
    """How classes become text, as the configuration says it beside the file."""
    said = [plan.alphabet or "", "" if plan.blank == "first" else plan.blank, "steps" if plan.ends else ""]
    if plan.characters is not None:
        said.append(hashlib.sha256(plan.characters.read_bytes()).hexdigest())
    return "/".join(said) if any(said) else ""
