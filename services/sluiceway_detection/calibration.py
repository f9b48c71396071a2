"""Post-training quantisation to int8, for CPUs that are not fast in bf16: calibrated on the user's own images, and
written only if the boxes stay where they are.

Convolutions alone are quantised: weights by channel, what flows into them by its range over the images. Attention and
the end of the head stay in f32, its last convolutions included: they are small, and with them in int8 one box in twelve
of a dense page was lost (text-small on 14 pictures: 91% matched with them, 99% without).

    python -m sluiceway_detection.calibration SOURCE.onnx TARGET.onnx --images FOLDER
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sluiceway_runtime.errors import SluicewayError, StartupError
from sluiceway_runtime.images.decode import decode_image
from sluiceway_runtime.images.limits import ImageLimits

from sluiceway.client.folders import images_in
from sluiceway_detection.backends import Backend, BackendSpec, open_backend
from sluiceway_detection.inputs.letterbox import Letterbox
from sluiceway_detection.inputs.shapes import choose_shape
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.selection import DEFAULT_CONFIDENCE, DEFAULT_IOU, Selection
from sluiceway_detection.types import Detections, ImageBgr
from sluiceway_detection.worker.detector import ModelDetector
from sluiceway_detection.yolo.heads import PLAIN

__all__ = ["LEAST_AGREEMENT", "Agreement", "calibrate", "compare", "main", "read_images"]

LEAST_AGREEMENT = 0.95
MATCHING_IOU = 0.8
SAME_PLACE = 0.01  # of overlap
# More say nothing new of ranges and take memory.
MOST_IMAGES = 300
# Fewer are too few to keep some of them unseen.
ENOUGH_IMAGES = 50
# A box this near to the threshold is there or not by any rounding; so neither side's such boxes must be matched.
MARGIN = 0.05
_TIMED_RUNS = 5
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the quantised model's boxes agree with those in f32.

    Attributes:
        boxes: of both sides that were looked for on the other.
        matched: share of them with a partner of the same class at an overlap above 0.8.
        confidence_gap: mean difference of confidence between partners.
        confidence_gap_max: largest.
        f32_ms: one image on one thread.
        int8_ms: likewise.
    """

    boxes: int
    matched: float
    confidence_gap: float
    confidence_gap_max: float
    f32_ms: float = 0.0
    int8_ms: float = 0.0


class _Pictures(Sequence[ImageBgr]):
    """Images in files, each decoded whenever it is asked for: 300 of a camera would take more memory than there is."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: Any) -> Any:
        return decode_image(self._paths[index].read_bytes(), ImageLimits())


def read_images(folder: Path) -> Sequence[ImageBgr]:
    """The images of a folder, with all below it, in order of their names; what is no image is passed over.

    Returns:
        Each is decoded when it is asked for, and not kept.

    Raises:
        StartupError: there is none.
    """
    paths: list[Path] = []
    for path in sorted(map(Path, images_in(str(folder), suffixes=_SUFFIXES))):
        if len(paths) < MOST_IMAGES:
            try:
                decode_image(path.read_bytes(), ImageLimits())
            except SluicewayError as error:
                logging.getLogger(__name__).warning("%s is passed over: %s", path.name, error)
            else:
                paths.append(path)
    if not paths:
        raise StartupError(f"{folder} holds no image")
    return _Pictures(paths)


def calibrate(
    source: Path, target: Path, images: Sequence[ImageBgr], *, least_agreement: float = LEAST_AGREEMENT
) -> Agreement:
    """Quantise a detection model.

    Args:
        source: ONNX, in f32 or with f16 weights.
        target: ONNX to write, for `detection.model` with `precision = "int8"`.
        images: like those that will come; of 50 or more, every fifth is kept for the comparison alone; of fewer, all
            serve for both.
        least_agreement: share of boxes that must find a partner.

    Raises:
        StartupError: libraries are missing, the model cannot be served or quantised, the images show nothing to
            compare, or fewer boxes agree. `target` is then as it was.
    """
    try:
        import onnxruntime.quantization  # noqa: F401, PLC0415 - an optional extra, which imports onnx
    except ImportError as error:
        raise StartupError(f"calibration needs sluiceway[calibration] ({error})") from error
    enough = len(images) >= ENOUGH_IMAGES
    judged = (images[number] for number in range(len(images)) if not (enough and number % 5))
    seen = (images[number] for number in range(len(images)) if number % 5 or not enough)
    plain = open_backend("openvino", BackendSpec(source, "cpu", 1, "f32"))
    if plain.card.map_reading is not None:
        raise StartupError(f"{source.name} is a DB model; int8 is made of YOLO models alone")
    if plain.card.head != PLAIN:
        # Only boxes would be compared, and angles, masks and keypoints come of digits that int8 has not.
        raise StartupError(f"{source.name} does not find boxes alone; int8 is made of YOLO models of task detect")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".calibration-") as folder:
        written = Path(folder) / "int8.onnx"
        _quantise(source, written, plain, seen)
        quantised = open_backend("openvino", BackendSpec(written, "cpu", 1, "int8", shapes=_shapes_of(plain)))
        found = compare(plain, quantised, judged)
        if found.boxes == 0:
            raise StartupError("the model finds nothing in these images, so nothing can be compared; take others")
        if found.matched < least_agreement:
            raise StartupError(
                f"int8 does not give this model's answers: {found.matched:.1%} of {found.boxes} boxes stay where they "
                f"are, {least_agreement:.1%} must; nothing was written. More images, and such as will come, may help"
            )
        written.replace(target)
    return found


def compare(plain: Backend, quantised: Backend, images: Iterable[ImageBgr]) -> Agreement:
    """Run both on images, with the thresholds that the model was made for."""
    least = plain.card.confidence or DEFAULT_CONFIDENCE
    # Weaker boxes may serve as partners of those that are looked for.
    job = DetectionJob(Selection(max(least - MARGIN, 0.01), plain.card.iou or DEFAULT_IOU))
    sides = [ModelDetector(backend) for backend in (plain, quantised)]
    overlaps: list[float] = []
    gaps: list[float] = []
    for image in images:
        one, other = (side.detect([image], [job])[0] for side in sides)
        for looked_for, among in ((one, other), (other, one)):
            found, gap = _partners(looked_for, among, least + MARGIN)
            overlaps += found
            gaps += gap
    matched = [overlap > MATCHING_IOU for overlap in overlaps]
    return Agreement(
        len(overlaps),
        statistics.fmean(matched) if matched else 0.0,
        statistics.fmean(gaps) if gaps else 0.0,
        max(gaps, default=0.0),
        _milliseconds(plain),
        _milliseconds(quantised),
    )


def _partners(looked_for: Detections, among: Detections, least: float) -> tuple[list[float], list[float]]:
    """Best overlap of every sure box, and the gaps of confidence between partners."""
    rows = np.flatnonzero(looked_for.confidences > least)
    if not len(rows) or not len(among):
        return [0.0] * len(rows), []
    boxes, others = looked_for.boxes_xyxy_px[rows], among.boxes_xyxy_px
    lower = np.maximum(boxes[:, None, :2], others[None, :, :2])
    upper = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.prod(np.maximum(upper - lower, 0), axis=2)
    areas = [np.prod(side[:, 2:] - side[:, :2], axis=1) for side in (boxes, others)]
    overlap = common / (areas[0][:, None] + areas[1][None] - common)
    overlap = np.where(looked_for.class_ids[rows][:, None] == among.class_ids[None], overlap, 0)
    apart = np.abs(looked_for.confidences[rows][:, None] - among.confidences[None])
    best = overlap.max(axis=1)
    # Of boxes in the same place, the one of like confidence is the partner.
    partner = np.where(overlap >= best[:, None] - SAME_PLACE, apart, np.inf).argmin(axis=1)
    gaps = apart[np.arange(len(rows)), partner][best > MATCHING_IOU]
    return best.tolist(), gaps.tolist()


def _milliseconds(backend: Backend) -> float:
    image = np.zeros((*backend.inputs.shapes[0], 3), np.uint8)
    took_s = []
    for _ in range(_TIMED_RUNS):
        begun_s = time.perf_counter()
        backend.infer([image])
        took_s.append(time.perf_counter() - begun_s)
    return min(took_s) * 1000


def _shapes_of(backend: Backend) -> tuple[tuple[int, int], ...]:
    return () if backend.card.fixed_shape else backend.inputs.shapes


def _quantise(source: Path, target: Path, plain: Backend, images: Iterable[ImageBgr]) -> None:
    import onnx  # noqa: PLC0415 - an optional extra
    from onnxruntime import quantization  # noqa: PLC0415

    model = onnx.load(source)
    _widen_weights(model)
    name = model.graph.input[0].name
    whole = target.with_name("whole.onnx")
    onnx.save(model, whole)
    # It recommends a pass that ONNX Runtime needs and OpenVINO does not.
    logging.getLogger().addFilter(_not_preprocessing)
    try:
        quantization.quantize_static(
            whole,
            target,
            _Reader(name, images, plain.inputs.shapes),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=_last_convolutions(model.graph),
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QUInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
        )
    except Exception as error:  # of many kinds, and none of them its own
        raise StartupError(f"{source.name} cannot be quantised: {error}") from error
    finally:
        logging.getLogger().removeFilter(_not_preprocessing)


def _not_preprocessing(record: logging.LogRecord) -> bool:
    return "pre-processing before quantization" not in record.getMessage()


class _Reader:
    """Hands the images to the calibration, letterboxed as the server does it; what it calls is `get_next`."""

    def __init__(self, name: str, images: Iterable[ImageBgr], shapes: Sequence[tuple[int, int]]) -> None:
        self._name = name
        self._blobs = self._letterboxed(images, shapes)

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        """The next input, None after the last."""
        return next(self._blobs, None)

    def _letterboxed(
        self, images: Iterable[ImageBgr], shapes: Sequence[tuple[int, int]]
    ) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        for image in images:
            size = (image.shape[0], image.shape[1])
            drawn = Letterbox.fit(size, choose_shape(size, shapes)).draw(image)
            rgb = np.ascontiguousarray(drawn[:, :, ::-1].transpose(2, 0, 1)[None], np.float32)
            yield {self._name: rgb / np.float32(255)}


def _last_convolutions(graph: Any) -> list[str]:
    """Those from which a path leads to the output without another one in between."""
    makers = {output: node for node in graph.node for output in node.output}
    found: list[str] = []
    seen: set[str] = set()
    wanted = [output.name for output in graph.output]
    while wanted:
        name = wanted.pop()
        node = makers.get(name)
        # A shape carries no pixels: it only tells how large the grid of places is.
        if node is None or name in seen or node.op_type == "Shape":
            continue
        seen.add(name)
        if node.op_type == "Conv":
            found.append(node.name)
        else:
            wanted += node.input
    return found


def _widen_weights(model: Any) -> None:
    """Half-precision weights that are cast to f32 before use become f32 weights: only those are seen as weights."""
    import onnx  # noqa: PLC0415

    graph = model.graph
    narrow = {item.name: item for item in graph.initializer if item.data_type == onnx.TensorProto.FLOAT16}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in narrow]
    for node in casts:
        wide = onnx.numpy_helper.to_array(narrow[node.input[0]]).astype(np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(wide, node.output[0]))
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for item in narrow.values():
        if item.name not in used:
            graph.initializer.remove(item)


def main(arguments: list[str] | None = None) -> int:
    """The command line: prints the agreement as JSON; faults go to stderr, exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m sluiceway_detection.calibration", description="Quantise to int8.")
    parser.add_argument("source", type=Path, help="ONNX file")
    parser.add_argument("target", type=Path, help="ONNX file to write")
    parser.add_argument("--images", type=Path, required=True, help="folder of images like those that will come")
    parser.add_argument("--least", type=float, default=LEAST_AGREEMENT, help="share of boxes that must agree")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if not options.target.parent.is_dir():
        sys.stderr.write(f"the folder {options.target.parent} does not exist\n")
        return 1
    try:
        pictures = read_images(options.images)
        sys.stderr.write(f"calibrating {options.source.name} on {len(pictures)} image(s)\n")
        found = calibrate(options.source, options.target, pictures, least_agreement=options.least)
    except (StartupError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
