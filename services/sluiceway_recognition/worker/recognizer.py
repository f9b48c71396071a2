"""Recognisers: the interface that user code implements as well, the built-in one, and how either is made.

A recogniser gets crops of one model, uint8 [height, w_i, 3], and returns one reading for each; the built-in one skips
the reading and answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sluiceway_runtime.errors import ModelFailed, StartupError

from sluiceway_recognition.backends import Backend, load_backend
from sluiceway_recognition.backends.agreement import agreeing_backend
from sluiceway_recognition.backends.batches import GraphSettings
from sluiceway_recognition.inputs.buckets import bucket_of
from sluiceway_recognition.plan import ModelPlan
from sluiceway_recognition.text import characters
from sluiceway_recognition.text.ctc import Convention
from sluiceway_recognition.text.doubles import with_doubles
from sluiceway_recognition.text.long_lines import divided, joined
from sluiceway_recognition.text.spaces import SPACED_PX, with_spaces
from sluiceway_recognition.text.upright import CLASSIFIER_HEIGHT, CLASSIFIER_NORMALISATION, CLASSIFIER_WIDTH, Upright
from sluiceway_recognition.text.words import with_words
from sluiceway_recognition.types import Answer, CropSpec, Head, Reading
from sluiceway_recognition.worker.heads import answers_of

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
    """A network with a head. It answers by itself, checked, for a whole batch at once.

    Args:
        plan: the model.
        backend: computes it.
        classes: text of each class of a text model; the empty one at the end that the plan names is its blank.
        classifier: of text that stands on its head; for plans that look for such text, where asking pays.
    """

    def __init__(
        self, plan: ModelPlan, backend: Backend, classes: Sequence[str], classifier: Backend | None = None
    ) -> None:
        self.crop_spec = plan.crop_spec
        self.buckets = plan.buckets
        self.labels = plan.labels
        self.backend = backend
        self._head = plan.head
        self._classes = np.array(list(classes) or list(plan.labels), dtype=np.object_)
        self._convention = Convention(len(self._classes) - 1 if plan.blank == "last" else 0, plan.ends)
        self._classifier = classifier
        self._upright = Upright(self._read, classifier) if plan.upright is not None else None

    def warm(self) -> None:
        """Compile and compute every bucket once, so that no request pays for it."""
        self.backend.warm(self.buckets)
        if self._classifier is not None:
            self._classifier.warm((CLASSIFIER_WIDTH,))

    def launch(
        self,
        crops: Sequence[NDArray[np.uint8]],
        top_ks: Sequence[int],
        words: Sequence[bool] = (),
        turned: Sequence[bool] = (),
    ) -> Callable[[], list[Answer | ModelFailed]]:
        """Start to read crops of any widths; each is padded to its own bucket.

        Args:
            crops: uint8 [height, w_i, 3] as `crop_spec` says; needed until the answers are there.
            top_ks: classes to name, for each crop.
            words: whether it is wanted where the words lie, for each crop; empty for none.
            turned: whether each was turned anticlockwise by 90 degrees when it was cut; empty for none.

        Returns:
            A function that waits for the end and returns an answer, or what is wrong, for each crop in order.
        """
        most = self.buckets[-1]
        if all(crop.shape[1] <= most for crop in crops):
            return self._launch(crops, top_ks, words, turned)
        lines = [divided(crop, most) for crop in crops]
        owners = [number for number, pieces in enumerate(lines) for _ in pieces]
        wait = self._launch(
            [piece.pixels for pieces in lines for piece in pieces],
            [top_ks[owner] for owner in owners],
            [words[owner] for owner in owners] if words else (),
            [turned[owner] for owner in owners] if turned else (),
        )

        def whole() -> list[Answer | ModelFailed]:
            answers = iter(wait())
            return [joined(pieces, [next(answers) for _ in pieces]) for pieces in lines]

        return whole

    def _launch(
        self,
        crops: Sequence[NDArray[np.uint8]],
        top_ks: Sequence[int],
        words: Sequence[bool],
        turned: Sequence[bool],
    ) -> Callable[[], list[Answer | ModelFailed]]:
        """`launch`, of crops that fit into a bucket."""
        asked = any(words)
        wait, upright = self._begin(crops, top_ks, spans=asked), self._upright
        lines = self._head is Head.TEXT and any(crop.shape[1] >= SPACED_PX for crop in crops)
        if upright is None and not asked and not lines:
            return wait

        def answers() -> list[Answer | ModelFailed]:
            found = wait() if upright is None else upright.settle(crops, wait(), turned)
            if lines:
                found = with_spaces(crops, with_doubles(crops, found))
            return with_words(crops, found, words) if asked else found

        return answers

    def _read(self, crops: Sequence[NDArray[np.uint8]]) -> list[Answer | ModelFailed]:
        return self._begin(crops, [1] * len(crops), spans=True)()

    def _begin(
        self, crops: Sequence[NDArray[np.uint8]], top_ks: Sequence[int], *, spans: bool
    ) -> Callable[[], list[Answer | ModelFailed]]:
        by_bucket: dict[int, list[int]] = {}
        for position, crop in enumerate(crops):
            by_bucket.setdefault(bucket_of(crop.shape[1], self.buckets), []).append(position)
        if len(by_bucket) == 1:
            (bucket,) = by_bucket
            finish = self.backend.launch(crops, bucket)
            over_px = self._over_px(bucket, asked=spans)
            return lambda: self._answers(finish(), top_ks, over_px)
        begun = [
            (
                positions,
                self._over_px(bucket, asked=spans),
                self.backend.launch([crops[position] for position in positions], bucket),
            )
            for bucket, positions in by_bucket.items()
        ]
        return lambda: self._gather(begun, top_ks)

    def _answers(
        self, arrays: tuple[NDArray[Any], ...], top_ks: Sequence[int], over_px: int
    ) -> list[Answer | ModelFailed]:
        return answers_of(self._head, arrays, self._classes, top_ks, convention=self._convention, spans_over_px=over_px)

    def _over_px(self, bucket: int, *, asked: bool) -> int:
        """Columns over which the spans of characters are wanted; 0 for none. In lines spaces are looked for.

        Steps that end by themselves do not lie over columns.
        """
        return bucket if (asked or bucket >= SPACED_PX) and not self._convention.ends else 0

    def _gather(
        self, begun: Sequence[tuple[list[int], int, Callable[[], tuple[NDArray[Any], ...]]]], top_ks: Sequence[int]
    ) -> list[Answer | ModelFailed]:
        answers: dict[int, Answer | ModelFailed] = {}
        for positions, over_px, finish in begun:
            wanted = [top_ks[position] for position in positions]
            of_part = self._answers(finish(), wanted, over_px)
            answers.update(zip(positions, of_part, strict=True))
        return [answers[position] for position in range(len(answers))]


def load_model(plan: ModelPlan, device: str, threads: int, graphs: GraphSettings | None = None) -> ModelRecognizer:
    """Load a built-in model; does not warm it.

    Args:
        plan: the model; has weights.
        device: `cpu`, `cuda:0` and so on.
        threads: compute threads that it may use on a CPU.
        graphs: how the graphs of a GPU are made.

    Raises:
        StartupError: unreadable weights, a missing extra, or files that do not belong together.
    """
    backend = load_backend(plan, device, threads, graphs)
    if plan.own:
        backend = agreeing_backend(plan, backend, device, threads, graphs)
    classes: tuple[str, ...] = ()
    if plan.head is Head.TEXT:
        classes = characters.with_blank(
            _character_list(plan, backend), backend.output_size, plan.blank, source=str(plan.weights)
        )
    elif plan.head is Head.CLASSIFY:
        labels = plan.labels or characters.labels_of(backend.metadata)
        if labels and len(labels) != backend.output_size:
            raise StartupError(f"{plan.key}: {len(labels)} labels for a model of {backend.output_size} classes")
        plan = replace(plan, labels=labels)
    return ModelRecognizer(plan, backend, classes, _classifier(plan, backend, device, threads))


def _classifier(plan: ModelPlan, backend: Backend, device: str, threads: int) -> Backend | None:
    """What tells text that stands on its head. Beside torch, which computes a reading as fast, there is none."""
    if plan.upright is None or backend.name != "openvino":
        return None
    asked = ModelPlan(
        name=plan.name,
        head=Head.CLASSIFY,
        crop_spec=CropSpec(CLASSIFIER_HEIGHT, CLASSIFIER_WIDTH),
        buckets=(CLASSIFIER_WIDTH,),
        normalisation=CLASSIFIER_NORMALISATION,
        weights=plan.upright,
        precision=plan.precision,
        section=plan.section,
    )
    return load_backend(asked, device, threads)


def _character_list(plan: ModelPlan, backend: Backend) -> tuple[str, ...]:
    if plan.alphabet is not None:
        return tuple(plan.alphabet)
    if plan.characters is not None:
        if plan.characters.suffix in (".yml", ".yaml"):
            return characters.from_inference_config(plan.characters)
        return characters.from_text_file(plan.characters)
    text = backend.metadata.get(characters.METADATA_KEY)
    if text is None:
        raise StartupError(
            f"{plan.weights} has no characters in its metadata: name a file with them, "
            f"`characters` of the model {plan.name}, or give them as `alphabet`"
        )
    return characters.from_metadata(text)
