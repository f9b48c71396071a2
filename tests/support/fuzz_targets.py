"""What is fuzzed, and what may come of it: a right result, or an error that a client or operator is meant to see."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tomllib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fuzz_inputs import Mutator, configurations, documents, images, messages, paged
from fuzz_orchestrator import orchestrator_messages
from google.protobuf.message import DecodeError
from ledger_models import LedgerRecognizer
from multidict import MultiDict
from sluiceway_detection.config import DetectionConfig
from sluiceway_detection.front import convert as detection_convert
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.selection import Selection
from sluiceway_detection.worker import handler as detection_handler
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.apis import load_apis
from sluiceway_orchestrator.fetch.api import within
from sluiceway_orchestrator.fetch.content import is_image, resolve_pointer
from sluiceway_orchestrator.fetch.document import chosen_detection, decode_image, parse_json, values_at
from sluiceway_orchestrator.fetch.guard import UrlPolicy
from sluiceway_orchestrator.fetch.url_text import resolved
from sluiceway_orchestrator.http.convert import request_from_image, request_from_json
from sluiceway_orchestrator.http.form import form_from_text, look_at
from sluiceway_orchestrator.pipelines.load import ApiFacts, load_pipelines
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front import convert as recognition_convert
from sluiceway_recognition.plan import ModelPlan, Normalisation
from sluiceway_recognition.types import CropTask, Head
from sluiceway_recognition.worker import handler as recognition_handler
from sluiceway_runtime.config import load_section, load_stages
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.documents.kind import is_document
from sluiceway_runtime.documents.limits import DocumentLimits
from sluiceway_runtime.errors import ConfigurationError, ImageTooLarge, InvalidImage, InvalidOption, SluicewayError
from sluiceway_runtime.images.limits import ImageLimits, check_image
from sluiceway_runtime.inference import http_json
from sluiceway_runtime.pool import Payload, Placement, Pool, PoolLimits, WorkerSpec
from sluiceway_runtime.server.security import SecurityConfig

from sluiceway.client.convert import from_response
from sluiceway.detection.v1 import detection_pb2
from sluiceway.errors import SluicewayError as ClientError
from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway.recognition.v1 import recognition_pb2

MAX_BYTES, MAX_PIXELS = 60_000, 1_000_000
LIMITS = ImageLimits(MAX_BYTES, MAX_PIXELS)
SECTIONS = {
    "detection": DetectionConfig,
    "recognition": RecognitionConfig,
    "orchestrator": OrchestratorConfig,
    "security": SecurityConfig,
}


class Finding(Exception):
    """An input that did what none may; `data` repeats it."""

    def __init__(self, target: str, data: bytes, what: str) -> None:
        super().__init__(f"{target}: {what} ({len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()[:16]})")
        self.target, self.data = target, data

    def save(self, folder: Path) -> Path:
        """Keep the input."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.target}-{hashlib.sha256(self.data).hexdigest()[:16]}.bin"
        path.write_bytes(self.data)
        return path


def protobuf(data: bytes) -> None:
    """Requests and answers as bytes, through every conversion that servers and client make."""
    defaults = detection_convert.Defaults(0.25, 0.7, 300, ("row",), (640,))
    orchestrator_messages(data)
    with suppress(DecodeError, SluicewayError):
        pages = detection_pb2.DetectPagesRequest.FromString(data)
        asked_pages = detection_convert.pages_request_of(pages)
        assert detection_convert.read_pages_request(data) == asked_pages
        detection_convert.job_of(asked_pages.message, defaults)
        detection_convert.page_range_of(asked_pages)
        is_document(asked_pages.document)
    for kind in (detection_pb2.DetectRequest, recognition_pb2.RecognizeRequest):
        try:
            message = kind.FromString(data)
        except DecodeError:
            continue
        try:
            if isinstance(message, detection_pb2.DetectRequest):
                asked = detection_convert.request_of(message)
                found = detection_convert.read_request(data)
                assert (found.image, list(found.crops)) == (asked.image, asked.crops)
                assert found.message.SerializeToString() == asked.message.SerializeToString()
                detection_convert.job_of(found.message, defaults)
                detection_convert.priority_of(found.message.priority)
                detection_convert.check_crops(found, 16)
                for crop in found.crops:
                    if isinstance(crop, detection_convert.RawCrop):
                        detection_convert.pixels_of(crop, LIMITS)
                    else:
                        check_image(detection_convert.file_of(crop), LIMITS)
                if not found.crops:
                    check_image(found.image, LIMITS)
            else:
                request = recognition_convert.request_of(message)
                assert recognition_convert.read_request(data) == request
                recognition_convert.check_crops(request, ["m"], 16)
                recognition_convert.top_k_of(request.options)
                recognition_convert.priority_of(request.priority)
                for crop in request.crops:
                    if isinstance(crop, recognition_convert.RawCrop):
                        recognition_convert.pixel_format_of(crop, max_px=10_000)
                    else:
                        recognition_convert.file_of(crop, LIMITS)
        except SluicewayError:
            pass
    with suppress(DecodeError, ClientError):
        from_response(pipeline_pb2.ProcessResponse.FromString(data), ["a"])


def configuration(data: bytes) -> None:
    """A configuration file and variables."""
    text = data.decode("utf-8", "replace")
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        tables = {}
    # What follows the first line break also comes as variables.
    words = text.replace("=", "\n").splitlines()
    for name, model in SECTIONS.items():
        keys = list(model.model_fields)
        variables = {
            f"SLUICEWAY_{name}__{keys[len(words[i]) % len(keys)]}".upper(): words[i + 1] for i in range(len(words) - 1)
        }
        for environment in ({}, variables):
            with suppress(ConfigurationError):
                load_section(model, name, tables=tables, environment=environment)
    with suppress(ConfigurationError):
        load_apis(tables)
    with suppress(ConfigurationError):
        stages = {name: entry.kind for name, entry in load_stages(tables, {}).items()}
        load_pipelines(tables, stages, {"a": ApiFacts(("p",), True)})


def documents_of_others(data: bytes) -> None:
    """Answers of APIs, bodies of HTTP requests, and options in their queries."""
    is_image(data)
    try:
        document = parse_json(data)
        for pointer in ("", "/a", "/a/0/image", "/m/k", "/0"):
            try:
                value = resolve_pointer(document, pointer)
            except KeyError:
                continue
            values_at(document, {"value": pointer})
            chosen_detection(document, {"classes": pointer})
            within(decode_image(value), MAX_BYTES)
    except SluicewayError:
        pass
    text = data.decode("utf-8", "replace")
    policy = UrlPolicy(["*"], [])
    for parse in (
        lambda: request_from_json(data),
        lambda: form_from_text(data),
        lambda: look_at(data),
        lambda: http_json.request_of(data, None, "model", ""),
        lambda: http_json.request_of(data, str(len(data) // 2), "model", ""),
        lambda: policy.parse(text),
        lambda: policy.parse(resolved("http://example.org/a/b?c", text)),
        lambda: request_from_image(data, MultiDict([tuple((text.split("&", 1)[0] + "=").split("=", 2)[:2])])),
    ):
        with suppress(SluicewayError):
            parse()


def headers(data: bytes) -> None:
    """What the front reads of a picture before it lets it in."""
    try:
        header = check_image(data, LIMITS)
    except (InvalidImage, ImageTooLarge):
        return
    assert header.width_px >= 1
    assert header.height_px >= 1
    assert header.width_px * header.height_px <= MAX_PIXELS


# By name: what is called, the seeds, and how much of all executions it gets beside decoding.
REQUESTS = [
    json.dumps({"sources": []}).encode(),
    json.dumps(
        {
            "inputs": [
                {
                    "name": "image",
                    "shape": [1, 1],
                    "datatype": "BYTES",
                    "parameters": {"content_type": "base64"},
                    "data": ["AA=="],
                },
                {"name": "n", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
            ],
            "outputs": [{"name": "texts", "parameters": {"classification": 2}}],
            "parameters": {"priority": 1},
        }
    ).encode(),
    b"url=https://example.org/a%20b.png&confidence=.5",
    b"https://user@example.org:8443/a/../b%2fc?d=e&f#g",
    "http://bücher.example/ä b?ü".encode(),
]
TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]], float]] = {
    "headers": (headers, images, 0.45),
    "protobuf": (protobuf, messages, 0.3),
    "documents": (documents_of_others, lambda: [*documents(), *REQUESTS], 0.2),
    "configuration": (configuration, configurations, 0.05),
}


def fuzz_functions(seed: int, executions: int, tell: Callable[[str, int], None] = lambda _name, _count: None) -> int:
    """Fuzz everything that needs no worker; returns how many executions that were.

    Raises:
        Finding: at the first one.
    """
    total = 0
    for name, (target, seeds_of, share) in TARGETS.items():
        mutator, seeds = Mutator(seed), seeds_of()
        count = max(len(seeds), int(executions * share))
        for number in range(count):
            data = seeds[number] if number < len(seeds) else mutator.pick(seeds)
            try:
                target(data)
            except Exception as error:
                raise Finding(name, data, repr(error)) from error
        total += count
        tell(name, count)
    return total


class Nothing:
    """A detector that finds nothing: what is fuzzed lies before it."""

    classes = ("row",)

    def setup(self, device: str) -> None: ...

    def __call__(self, batch: list[object]) -> list[list[object]]:
        return [[] for _ in batch]


def detection_pool(workers: int) -> Pool:
    """The pool of a detection server: its own handler, the built-in decoding."""
    settings = detection_handler.WorkerSettings(
        detector="fuzz_targets:Nothing",
        max_image_bytes=MAX_BYTES,
        max_image_pixels=MAX_PIXELS,
        documents=DocumentLimits(max_pages=20, dpi=36, page_timeout_s=5),
    )
    return _pool(detection_handler.FACTORY, settings.mapping(), workers)


def recognition_pool(workers: int) -> Pool:
    """The pool of a recognition server, for crops that come as files."""
    spec = LedgerRecognizer.crop_spec
    plan = ModelPlan(
        "m", Head.TEXT, spec, (spec.max_width,), Normalisation((0, 0, 0), (1, 1, 1)),
        user_class="ledger_models:LedgerRecognizer",
    )  # fmt: skip
    config = recognition_handler.worker_config((plan,), LIMITS)
    return _pool(recognition_handler.FACTORY, config, workers)


def _pool(factory: str, config: dict[str, object], workers: int) -> Pool:
    placements = tuple(Placement(index, "cpu", None, 1) for index in range(workers))
    limits = PoolLimits(max_batch=32, queue_items=4096, batch_timeout_s=20)
    return Pool(WorkerSpec(factory, config, placements, credits=2), limits, name="fuzz")


async def fuzz_decoding(seed: int, executions: int, workers: int = 2) -> Counter[str]:
    """Decode mutated pictures in real workers of both stages, and a tenth of that many pages of documents.

    Returns:
        How they ended, by the name of the error.

    Raises:
        Finding: something else than a result or an error of the image came, or a worker died.
    """
    mutator, seeds, files = Mutator(seed), images(), paged()
    job = DetectionJob(Selection(0.25, 0.7, 300))
    task = CropTask("m")
    pages = executions // 11
    shares = (
        (
            "detection",
            detection_pool,
            lambda: (data := mutator.pick(seeds), job.payload(data)),
            (executions - pages) // 2,
        ),
        (
            "documents",
            detection_pool,
            lambda: (data := mutator.pick(files), job._replace(page=mutator.random.randrange(3)).payload(data)),
            pages,
        ),
        (
            "recognition",
            recognition_pool,
            lambda: (data := mutator.pick(seeds), Payload(task, (data,))),
            executions - pages - (executions - pages) // 2,
        ),
    )
    ends: Counter[str] = Counter()
    for name, pool_of, make, count in shares:
        pool = pool_of(workers)
        await pool.start()
        try:
            pids = {worker.pid for worker in pool.statistics().workers}
            for start in range(0, count, 1024):
                made = [make() for _ in range(min(1024, count - start))]
                futures = [pool.submit(payload, request_id="r", deadline=Deadline.after(120)) for _, payload in made]
                answers = await asyncio.gather(*futures, return_exceptions=True)
                for (data, payload), answer in zip(made, answers, strict=True):
                    if isinstance(answer, BaseException) and not _is_of_the_input(answer, payload):
                        raise Finding(f"decoding-{name}", data, repr(answer))
                    ends[type(answer).__name__] += 1
            counters = pool.statistics().counters
            assert (counters.deaths, counters.quarantined) == (0, 0), counters
            assert pids == {worker.pid for worker in pool.statistics().workers}
        finally:
            await pool.close()
    return ends


def _is_of_the_input(error: BaseException, payload: Payload) -> bool:
    # Of a document, a page may be asked for that is not there any more.
    asked = payload.meta.page if isinstance(payload.meta, DetectionJob) else None
    return isinstance(error, InvalidImage | ImageTooLarge) or (asked is not None and isinstance(error, InvalidOption))
