"""Write ONNX: the student (half-precision storage, any input size) or the teacher.

python -m training.text_detector.export --student student.pt --out text-nano.onnx
python -m training.text_detector.export --teacher best.pt --out text-small.onnx
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from .distillation import NAMES, build_student

# Chosen on calibration images of training's own sources (README.md), never on the evaluation images.
_NANO_SIDE_PX = 768
_NANO_CONFIDENCE = 0.3
_NANO_IOU = 0.3
_DESCRIPTION = "text-nano: words in pages, screens and photographs (YOLO26n distilled from YOLO26s text)"
_SMALLEST = 64  # tensors below this many elements stay in single precision: scales and shapes, not weights


def store_half(model: onnx.ModelProto) -> None:
    """Keep the weights as float16 and cast them where they are used; the arithmetic stays in float32."""
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < _SMALLEST:
            continue
        name = tensor.name
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}_half")
        tensor.CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT, name=f"{name}_cast"))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def export(model: nn.Module, out: Path, *, size: int, half: bool, metadata: dict[str, str]) -> None:
    """Export a detection model with its classic head.

    Input `images` float32 [1, 3, H, W], RGB, 0..1, H and W multiples of 32; output `output0` float32
    [1, 4 + classes, A] with A = H * W * 21 / 1024: centre x, centre y, width, height in input pixels, then a
    probability a class.
    """
    model = model.float().eval().fuse(verbose=False)
    head = model.model[-1]
    head.export, head.format, head.dynamic = True, "onnx", True
    example = torch.rand(1, 3, size, size - 32)  # not square: height and width must not be mixed up
    with torch.no_grad():
        for _ in range(2):  # the first pass builds the anchor grid
            model(example)
        axes = {"images": {2: "height", 3: "width"}, "output0": {2: "anchors"}}
        torch.onnx.export(
            model,
            (example,),
            str(out),
            input_names=["images"],
            output_names=["output0"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    graph = onnx.load(out)
    if half:
        store_half(graph)
    for key, value in metadata.items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(graph)
    onnx.save(graph, out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--student", type=Path)
    source.add_argument("--teacher", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, help="input side in pixels; nano 768, small 640")
    parser.add_argument("--confidence", type=float, help="default threshold for the metadata; nano 0.3, small none")
    parser.add_argument(
        "--iou", type=float, help="default overlap of suppression for the metadata; nano 0.3, small none"
    )
    arguments = parser.parse_args()
    if arguments.student:
        model = build_student()
        model.load_state_dict({k: v.float() for k, v in torch.load(arguments.student, map_location="cpu").items()})
        names = dict(NAMES)
    else:
        model = torch.load(arguments.teacher, map_location="cpu", weights_only=False)["model"]
        model.model[-1].one2one_cv2 = model.model[-1].one2one_cv3 = None
        names = dict(model.names)
    size = arguments.size or (_NANO_SIDE_PX if arguments.student else 640)
    confidence, iou = (_NANO_CONFIDENCE, _NANO_IOU) if arguments.student else (None, None)
    metadata = {
        "names": str(names),
        "stride": "32",
        "task": "detect",
        "imgsz": json.dumps([size, size]),
        "head": "classic",  # one-to-many: wants non-maximum suppression
        "colour": "RGB",
        "confidence": arguments.confidence or confidence,
        "iou": arguments.iou or iou,
        "license": "AGPL-3.0",
        "description": _DESCRIPTION if arguments.student else "",
    }
    written = {key: str(value) for key, value in metadata.items() if value}
    export(model, arguments.out, size=size, half=bool(arguments.student), metadata=written)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
