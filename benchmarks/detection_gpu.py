"""Detection on a GPU beside detection on all cores of the same machine: same weights, same images, same boxes.

    make bench-detection-gpu          # a machine with CUDA: four minutes, most of them for the compiler's first run
    python benchmarks/detection_gpu.py --weights text-small --json out/bench-detection-gpu.json

A detection server on CUDA and one with a worker on each core take turns under the load of several client processes;
a ratio is the median of what the rounds gave. Before that, the boxes of every image that the server on CUDA answers
with are held against those of the CPU's backend in f32, and the worker's parts are measured without a server.

Exits 1 if a ratio misses its bar, and 2 at once where there is no CUDA. Needs the packages of a detection server and
torch.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "support"))

import cv2
import grpc
import numpy as np
from contestant import Contestant
from detection_report import Report, machine
from detection_servers import DetectionServer
from sluiceway_detection.backends import BackendSpec, open_backend
from sluiceway_detection.backends.agreement import reference_image
from sluiceway_detection.inputs.shapes import choose_shape
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.selection import Selection
from sluiceway_detection.types import Detections
from sluiceway_detection.worker.detector import ModelDetector
from sluiceway_runtime import weights
from sluiceway_runtime.cores import read_cpu_facts
from sluiceway_runtime.devices import find_cuda
from sluiceway_runtime.images.decode import decode_image
from sluiceway_runtime.images.limits import ImageLimits
from stage_process import environment

from sluiceway.detection.v1 import detection_pb2 as pb
from sluiceway.detection.v1 import detection_pb2_grpc

ROOT = Path(__file__).parents[1]
SUPPORT = ROOT / "benchmarks" / "support"
SAMPLE = "bus.jpg"
# Photographs, too, so that more than one picture says whether the boxes are the same.
PICTURES = ROOT / "tests" / "unit" / "detection" / "images"
# Drawn, with a hundred words each.
PAGES = ((640, 480), (1280, 960), (960, 1280))
TIMES_THE_CPU = 3.0
LEAST_IOU, LEAST_EQUAL = 0.9, 0.99
# A region this near to the threshold may fall on either side of it.
BORDER = 0.05
START_TIMEOUT_S = 540.0
CALL_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 60.0
CPU_SERVER, GPU_SERVER = "all cores", "GPU"


def main() -> int:
    """Measure, print, write, and say by exit code whether every bar was met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="text-small", help="name or path of an ONNX file")
    parser.add_argument("--image", type=Path, help=f"what is sent; by default the sample {SAMPLE}")
    parser.add_argument("--device", default="cuda:0", help="cuda:N; cpu is for trying this program out")
    parser.add_argument("--batch", type=int, default=16, help="most images in a batch on the device")
    parser.add_argument("--decode", choices=("auto", "cpu", "gpu"), default="auto", help="where files are decoded")
    parser.add_argument("--clients", type=int, default=4, help="client processes")
    parser.add_argument(
        "--in-flight", type=int, default=128, help="requests on their way to the device, of all clients"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of one server in one round")
    parser.add_argument("--without-cpu", action="store_true", help="leave out the server on the cores")
    parser.add_argument("--without-parts", action="store_true", help="leave out what a worker does without a server")
    parser.add_argument("--json", type=Path, default=Path("out/bench-detection-gpu.json"))
    options = parser.parse_args()
    if fault := what_is_missing(options.device, without_cpu=options.without_cpu):
        print(fault, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="bench-detection-gpu-") as folder:
        benchmark = Benchmark(options, Path(folder))
        report = benchmark.run()
    print(report.text())
    for name, value in benchmark.parts.items():
        print(f"{name:<30}{value:>9.2f}" if isinstance(value, float) else f"{name:<30}{value!s:>9}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    values = report.values() | {"parts": benchmark.parts}
    options.json.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return 0 if report.passed else 1


def what_is_missing(device: str, *, without_cpu: bool) -> str:
    """Why this cannot be measured here, in a line; empty if it can."""
    for library in ("torch", "onnx"):
        if importlib.util.find_spec(library) is None:
            return f"detection on a GPU needs {library}: run this with a Python that has sluiceway[gpu]"
    if device != "cpu" and not (cuda := find_cuda()).devices:
        return f"device {device}: {cuda.missing}"
    if not without_cpu and cpu_backend() is None:
        return "the server on the cores needs openvino or onnxruntime; leave it out with --without-cpu"
    return ""


def cpu_backend() -> str | None:
    """What computes on the cores."""
    found = (name for name, library in (("openvino", "openvino"), ("onnx", "onnxruntime")) if _has(library))
    return next(found, None)


def _has(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


class Benchmark:
    """One run."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self._folder = folder
        found = weights.resolve(options.weights, kind="detection")
        self._weights = found.path.resolve()
        self._image: Path = (options.image or weights.pull_samples([SAMPLE])[SAMPLE]).resolve()
        cores = len(read_cpu_facts().allowed)
        self._cores = cores
        self._report = Report(found.name, cores)
        self._report.machine = machine(cores)
        image = decode_image(self._image.read_bytes(), ImageLimits())
        # One shape, the one that the image wants: others would only be compiled.
        self._shape = choose_shape((image.shape[0], image.shape[1]), ((640, 640), (480, 640), (640, 480)))
        self.parts: dict[str, Any] = {}

    def run(self) -> Report:
        """Everything, in order."""
        options, report = self._options, self._report
        self._parts()
        with ExitStack() as stack:
            begun_s = time.monotonic()
            say("starting the server on the device")
            gpu = stack.enter_context(self._gpu_server())
            gpu.wait_ready()
            self.parts["server_start_s"] = time.monotonic() - begun_s
            report.describe(gpu.status["model"])
            self._boxes(gpu)
            gpu_clients = [stack.enter_context(client) for client in self._clients(gpu)]
            cpu, cpu_clients = None, []
            if not options.without_cpu:
                say("starting the server on the cores")
                cpu = stack.enter_context(self._cpu_server())
                cpu.wait_ready()
                self.parts["cpu_precision"] = cpu.status["model"]["precision"]
                cpu_clients = [stack.enter_context(client) for client in self._clients(cpu)]
            for number in range(options.rounds):
                say(f"round {number + 1} of {options.rounds}")
                report.add(f"{GPU_SERVER}, 1 in flight", gpu.run(options.seconds / 3, 1))
                report.add(GPU_SERVER, self._load(gpu_clients, options.in_flight))
                if cpu is not None:
                    report.add(CPU_SERVER, self._load(cpu_clients, 4 * self._cores))
        if not options.without_cpu:
            report.quotient("gpu_over_all_cores", GPU_SERVER, CPU_SERVER, ">=", TIMES_THE_CPU)
        if "bytes_to_boxes" in self.parts:
            self.parts["served_over_worker"] = report.per_s(GPU_SERVER) / self.parts["bytes_to_boxes"]
        return report

    def _settings(self, **more: Any) -> dict[str, Any]:
        height, width = self._shape
        return {"model": str(self._weights), "shapes": [f"{height}x{width}"], **more}

    def _gpu_server(self) -> DetectionServer:
        options = self._options
        more: dict[str, Any] = {"device": options.device, "backend": "torch", "max_batch": options.batch}
        more |= {"decode": options.decode}
        if options.device == "cpu":
            more |= {"workers": 1, "threads_per_worker": self._cores}
        return DetectionServer(self._settings(**more), self._image, start_timeout_s=START_TIMEOUT_S)

    def _cpu_server(self) -> DetectionServer:
        settings = self._settings(device="cpu", backend=cpu_backend(), workers=self._cores)
        return DetectionServer(settings, self._image)

    def _clients(self, server: DetectionServer) -> list[Contestant]:
        command = [sys.executable, str(SUPPORT / "detection_load.py"), server.address, str(self._image)]
        made = [
            Contestant(command, server.variables, start_timeout_s=CALL_TIMEOUT_S) for _ in range(self._options.clients)
        ]
        for client in made:
            client.wait_ready()
        return made

    def _load(self, clients: Sequence[Contestant], in_flight: int) -> dict[str, Any]:
        """All clients at once; what they measured, together."""
        for client in clients:
            client.begin(self._options.seconds, max(1, in_flight // len(clients)))
        found = [client.end(self._options.seconds + ANSWER_TIMEOUT_S) for client in clients]
        return {
            "per_s": sum(item["per_s"] for item in found),
            "took_ms": [took for item in found for took in item["took_ms"]],
            "regions": found[0]["regions"],
        }

    def _parts(self) -> None:
        """The worker's own parts, in a process that ends before the servers start."""
        options = self._options
        if options.without_parts:
            return
        say("the worker alone (at the first time, its graphs are compiled: a minute or two)")
        settings = {
            "weights": str(self._weights),
            "image": str(self._image),
            "device": options.device,
            "shapes": [self._shape],
            "batch": options.batch,
            "decode": options.decode,
            "threads": max(1, min(12, self._cores)),
        }
        command = [sys.executable, str(SUPPORT / "detection_device_loop.py"), json.dumps(settings)]
        with Contestant(command, environment(self._folder), start_timeout_s=START_TIMEOUT_S) as loop:
            loop.wait_ready()
            loop.begin(options.seconds)
            self.parts |= loop.end(options.seconds + ANSWER_TIMEOUT_S)

    # Boxes.

    def _boxes(self, server: DetectionServer) -> None:
        """Hold the answers of the server on the device against f32 on the CPU."""
        backend = cpu_backend()
        if backend is None:
            self._report.missing("boxes_equal", ">=", LEAST_EQUAL, "neither openvino nor onnxruntime is here")
            return
        say(f"boxes beside {backend} in f32")
        threads = min(self._cores, 8)
        spec = BackendSpec(self._weights, "cpu", threads, precision="f32", shapes=(self._shape,))
        reference = ModelDetector(open_backend(backend, spec))  # type: ignore[arg-type]  # one of the two names
        images = [path.read_bytes() for path in (self._image, *sorted(PICTURES.glob("*.jpg")))]
        images += [cv2.imencode(".png", reference_image(size))[1].tobytes() for size in PAGES]
        equal, wanted = 0, 0
        with grpc.insecure_channel(server.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
            stub = detection_pb2_grpc.DetectionServiceStub(channel)
            defaults = stub.Describe(pb.DescribeRequest(), timeout=CALL_TIMEOUT_S).default_options
            for data in images:
                answer = stub.Detect(pb.DetectRequest(image=data), timeout=CALL_TIMEOUT_S)
                job = DetectionJob(Selection(defaults.confidence, defaults.iou, defaults.max_detections))
                (expected,) = reference.detect([decode_image(data, ImageLimits())], [job])
                same, due = matches(expected, answer, defaults.confidence + BORDER)
                equal, wanted = equal + same, wanted + due
        note = f"{equal} of {wanted} regions at IoU > {LEAST_IOU}, same class, in {len(images)} images"
        self._report.bar("boxes_equal", equal / max(wanted, 1) if wanted else 0.0, ">=", LEAST_EQUAL, note)


def matches(expected: Detections, answer: pb.DetectResponse, least_confidence: float) -> tuple[int, int]:
    """How many regions of each side have their like on the other, and how many there are.

    Regions just above the threshold are looked for but not asked for: rounding may take them below it.
    """
    boxes = np.array(
        [(box.x0, box.y0, box.x1, box.y1) for found in answer.detections if (box := found.geometry.box)], np.float64
    ).reshape(-1, 4)
    classes = np.array([found.class_id for found in answer.detections], np.int64)
    confidences = np.array([found.confidence for found in answer.detections])
    alike = intersection_over_union(expected.boxes_xyxy_px.astype(np.float64), boxes) > LEAST_IOU
    alike &= expected.class_ids[:, None] == classes[None]
    sure_here, sure_there = expected.confidences > least_confidence, confidences > least_confidence
    same = int(alike.any(axis=1)[sure_here].sum()) + int(alike.any(axis=0)[sure_there].sum())
    return same, int(sure_here.sum()) + int(sure_there.sum())


def intersection_over_union(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Of every pair of boxes (x0, y0, x1, y1)."""
    low = np.maximum(left[:, None, :2], right[None, :, :2])
    high = np.minimum(left[:, None, 2:], right[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (left, right)]
    return np.asarray(common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9))


def say(text: str) -> None:
    """Tell how it goes."""
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
