"""Recognisers: the interface that user code implements as well, the built-in one, and how either is made.

A recogniser gets crops of one model, uint8 [height, w_i, 3], and returns one reading for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray
from sluiceway_runtime.errors import ModelFailed, StartupError

from sluiceway_recognition import characters
from sluiceway_recognition.backends import Backend, load_backend
from sluiceway_recognition.buckets import bucket_of
from sluiceway_recognition.heads import reading_of
from sluiceway_recognition.plan import ModelPlan
from sluiceway_recognition.types import CropSpec, Head, Reading

__all__ = ["ModelRecognizer", "Recognizer", "load_model"]


class Recognizer(Protocol):
    """What a worker calls. User classes implement this; nothing has to be inherited.

    A class may also have `labels: Sequence[str]` (classifiers), `buckets: Sequence[int]` (ascending widths: only crops
    of one bucket then share a batch; padding is up to the class) and `warm() -> None` (called once after `setup`).

    Attributes:
        crop_spec: the crops that it wants; read after `setup`.
    """

    crop_spec: CropSpec

    def setup(self, device: str) -> None:
        """Load, once, in the worker process. `device` is `cpu`, `cuda:0` and so on. An exception fails the start."""

    def __call__(self, batch: list[NDArray[np.uint8]]) -> Sequence[Reading | ModelFailed]:
        """Read crops.

        Args:
            batch: one crop or more, uint8 [height, w_i, 3] in the format of `crop_spec` (BGR by default); read-only,
                and only valid during the call.

        Returns:
            One reading for each, in order; a `ModelFailed` instance in the place of one fails that crop alone.
            An exception fails the batch, which is then split to find the guilty crop.
        """
        ...


class ModelRecognizer:
    """A network with a head; implements `Recognizer`.

    Args:
        plan: the model.
        backend: computes it.
        classes: text of each class of a text model.
    """

    def __init__(self, plan: ModelPlan, backend: Backend, classes: Sequence[str]) -> None:
        self.crop_spec = plan.crop_spec
        self.buckets = plan.buckets
        self.labels = plan.labels
        self.backend = backend
        self._head = plan.head
        self._classes = classes

    def setup(self, device: str) -> None:
        """Nothing: the backend came loaded."""

    def warm(self) -> None:
        """Compile and compute every bucket once, so that no request pays for it."""
        self.backend.warm(self.buckets)

    def __call__(self, batch: list[NDArray[np.uint8]]) -> list[Reading | ModelFailed]:
        """Read crops of any widths; each is padded to its own bucket."""
        by_bucket: dict[int, list[int]] = {}
        for position, crop in enumerate(batch):
            by_bucket.setdefault(bucket_of(crop.shape[1], self.buckets), []).append(position)
        readings: list[Reading | ModelFailed | None] = [None] * len(batch)
        for bucket, positions in by_bucket.items():
            outputs = self.backend.infer([batch[position] for position in positions], bucket)
            for position, arrays in zip(positions, outputs, strict=True):
                try:
                    readings[position] = reading_of(self._head, arrays, self._classes)
                except ModelFailed as error:
                    readings[position] = error
        return cast("list[Reading | ModelFailed]", readings)


def load_model(plan: ModelPlan, device: str, threads: int) -> ModelRecognizer:
    """Load a built-in model; does not warm it.

    Args:
        plan: the model; has weights.
        device: `cpu`, `cuda:0` and so on.
        threads: compute threads that it may use on a CPU.

    Raises:
        StartupError: unreadable weights, a missing extra, or files that do not belong together.
    """
    backend = load_backend(plan, device, threads)
    classes: tuple[str, ...] = ()
    if plan.head is Head.TEXT:
        classes = characters.with_blank_and_space(
            _character_list(plan, backend), backend.output_size, source=str(plan.weights)
        )
    elif plan.labels and len(plan.labels) != backend.output_size:
        raise StartupError(
            f"recognition.models.{plan.name}: {len(plan.labels)} labels for a model of {backend.output_size} classes"
        )
    return ModelRecognizer(plan, backend, classes)


def _character_list(plan: ModelPlan, backend: Backend) -> tuple[str, ...]:
    if plan.characters is not None:
        if plan.characters.suffix in (".yml", ".yaml"):
            return characters.from_inference_config(plan.characters)
        return characters.from_text_file(plan.characters)
    text = backend.metadata.get(characters.METADATA_KEY)
    if text is None:
        raise StartupError(
            f"{plan.weights} has no characters in its metadata: name a file with them, "
            f"`characters` of the model {plan.name}"
        )
    return characters.from_metadata(text)
