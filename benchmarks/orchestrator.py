"""What the orchestrator itself costs: its process between stages that answer at once.

    python benchmarks/orchestrator.py [--seconds 4] [--rounds 3] [--json FILE]

Client, stages and what stands between them are processes of their own. The one in the middle has a core to itself and
everything else the other core: first the real orchestrator, then, for comparison in the same run, a proxy that parses
the same messages, makes the same two calls and sends the same five messages, and does nothing else. Messages are those
of one image a job: a file of 100 kB, 16 crops of 12 kB, 16 texts.

Exits 1 if a figure is below its bar.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

import grpc
import grpc.aio
import psutil
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from ports import free_ports

from sluiceway.common.v1 import crop_pb2, model_pb2, value_pb2
from sluiceway.detection.v1 import detection_pb2, detection_pb2_grpc
from sluiceway.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc
from sluiceway.recognition.v1 import recognition_pb2, recognition_pb2_grpc

IMAGE_BYTES, CROPS, CROP_BYTES = 100_000, 16, 12_000
IN_FLIGHT = 24
BARS = {"images_per_s": (">=", 400.0), "of_proxy": (">=", 0.5), "added_latency_ms": ("<=", 6.0)}
OPTIONS = [
    ("grpc.max_receive_message_length", 64 * 2**20),
    ("grpc.max_send_message_length", 64 * 2**20),
    ("grpc.use_local_subchannel_pool", 1),
    # Orchestrators that wait for their turn look now and then whether a stage is there.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
]
DETECT = "/sluiceway.detection.v1.DetectionService/Detect"
RECOGNIZE = "/sluiceway.recognition.v1.RecognitionService/RecognizeWhole"
# Several may run at once, and nobody asks them over HTTP.
NO_HTTP = {"SLUICEWAY_ORCHESTRATOR__HTTP__ENABLED": "false"}
PROCESS = "/sluiceway.pipeline.v1.PipelineService/Process"


def detect_request() -> bytes:
    return detection_pb2.DetectRequest(image=b"\xff\xd8\xff".ljust(IMAGE_BYTES, b"\x00")).SerializeToString()


def detect_response() -> bytes:
    response = detection_pb2.DetectResponse(
        width=1080,
        height=810,
        model=model_pb2.Model(name="detector", version="1", weights_sha256="d" * 64),
        timings=model_pb2.StageTimings(compute_ms=1, total_ms=1),
        load=model_pb2.Load(running=1, capacity=256),
    )
    for index in range(CROPS):
        found = response.detections.add(id=index, class_name="textline", confidence=0.9)
        found.geometry.box.x1, found.geometry.box.y0, found.geometry.box.y1 = 200, 40 * index, 40 * index + 30
        raw = crop_pb2.RawImage(height=48, width=CROP_BYTES // 144, data=bytes(CROP_BYTES))
        response.crops.add(id=index, spec="words", raw=raw)
    return response.SerializeToString()


def recognize_response() -> bytes:
    response = recognition_pb2.RecognizeResponse(
        model=model_pb2.Model(name="reader", version="1", weights_sha256="e" * 64),
        timings=model_pb2.StageTimings(compute_ms=1, total_ms=1),
        load=model_pb2.Load(running=16, capacity=4096),
    )
    for index in range(CROPS):
        response.recognitions.add(crop_id=index, text=value_pb2.Text(text="fourteen chars", confidence=0.9))
    return response.SerializeToString()


def process_request() -> bytes:
    image = b"\xff\xd8\xff".ljust(IMAGE_BYTES, b"\x00")
    return pipeline_pb2.ProcessRequest(sources=[pipeline_pb2.Source(image=image)]).SerializeToString()


def metadata_of(request: bytes) -> tuple[tuple[str, str], ...]:
    """What a client says of its request, so that it need not wait for a reading place; the proxy does not care."""
    return (("sluiceway-request-bytes", str(len(request))),)


# The processes.


async def serve_stage(kind: str, host: str = "127.0.0.1") -> None:
    """Answers with bytes made beforehand: no stage could be cheaper."""
    server = grpc.aio.server(options=OPTIONS)
    if kind == "detection":
        found, name = detect_response(), "sluiceway.detection.v1.DetectionService"

        async def detect(_request: bytes, _context: Any) -> bytes:
            return found

        methods = {"Detect": grpc.unary_unary_rpc_method_handler(detect)}  # type: ignore[arg-type]
        described = detection_pb2.DescribeResponse(classes=["textline", "image"]).SerializeToString()
    else:
        read, name = recognize_response(), "sluiceway.recognition.v1.RecognitionService"

        async def recognize(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
            yield read

        async def recognize_whole(_request: bytes, _context: Any) -> bytes:
            return read

        methods = {
            "Recognize": grpc.unary_stream_rpc_method_handler(recognize),  # type: ignore[arg-type]
            "RecognizeWhole": grpc.unary_unary_rpc_method_handler(recognize_whole),  # type: ignore[arg-type]
        }
        model = recognition_pb2.ModelDescription(
            model=model_pb2.Model(name="reader"), crop_spec=crop_pb2.CropSpec(name="reader", height=48, max_width=320)
        )
        described = recognition_pb2.DescribeResponse(models=[model], whole_crops=32).SerializeToString()

    async def describe(_request: bytes, _context: Any) -> bytes:
        return described

    methods["Describe"] = grpc.unary_unary_rpc_method_handler(describe)  # type: ignore[arg-type]
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
    servicer = health.aio.HealthServicer()
    await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await listen(server, host)


async def serve_proxy(detection: str, recognition: str) -> None:
    """Parses, calls and sends what the orchestrator does, without doing any of its work."""
    stubs = (
        detection_pb2_grpc.DetectionServiceStub(grpc.aio.insecure_channel(detection, options=OPTIONS)),
        recognition_pb2_grpc.RecognitionServiceStub(grpc.aio.insecure_channel(recognition, options=OPTIONS)),
    )

    class Proxy(pipeline_pb2_grpc.PipelineServiceServicer):
        async def Process(  # noqa: N802
            self, request: pipeline_pb2.ProcessRequest, _context: Any
        ) -> AsyncIterator[pipeline_pb2.ProcessResponse]:
            image = request.sources[0].image
            yield pipeline_pb2.ProcessResponse(source_ready=pipeline_pb2.SourceReady(size_bytes=len(image)))
            found = await stubs[0].Detect(detection_pb2.DetectRequest(image=image))
            # Detections are the beginning of regions, and recognitions that of values: the same bytes.
            only = detection_pb2.DetectResponse(detections=found.detections)
            regions = pipeline_pb2.Regions.FromString(only.SerializeToString())
            regions.step, regions.page.width, regions.page.height = "text", found.width, found.height
            yield pipeline_pb2.ProcessResponse(regions=regions)
            answer = await stubs[1].RecognizeWhole(recognition_pb2.RecognizeRequest(crops=found.crops))
            read_here = recognition_pb2.RecognizeResponse(recognitions=answer.recognitions)
            values = pipeline_pb2.Values.FromString(read_here.SerializeToString())
            values.step, values.subject = "words", pipeline_pb2.SUBJECT_REGION
            yield pipeline_pb2.ProcessResponse(values=values)
            yield pipeline_pb2.ProcessResponse(done=pipeline_pb2.SourceDone(reading_order=range(CROPS)))
            yield pipeline_pb2.ProcessResponse(job_done=pipeline_pb2.JobDone(succeeded=1))

    server = grpc.aio.server(options=OPTIONS)
    pipeline_pb2_grpc.add_PipelineServiceServicer_to_server(Proxy(), server)
    await listen(server)


def collect() -> None:
    """Takes traces by HTTP, and forgets them."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


async def listen(server: grpc.aio.Server, host: str = "127.0.0.1") -> None:
    port = server.add_insecure_port(f"{host}:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


@contextmanager
def process(*arguments: str, core: int) -> Iterator[tuple[psutil.Process, str]]:
    """A process of this benchmark on one core; gives it and the address that it printed."""
    started = subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        os.sched_setaffinity(started.pid, {core})
        assert started.stdout is not None
        yield psutil.Process(started.pid), started.stdout.readline().strip()
    finally:
        started.kill()
        started.wait()
        if started.stdout is not None:
            started.stdout.close()


@contextmanager
def orchestrator(
    detection: str,
    recognition: str,
    core: int,
    more: Mapping[str, object] | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[tuple[psutil.Process, str]]:
    """The real server, as `sluiceway serve orchestrator` runs it, with `more` settings and variables."""
    # Told beforehand, as it may be one that logs nothing.
    [port] = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"port": port, "operations_port": 0, "detection": detection, "recognition": recognition}
        settings |= dict(more or {})
        options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        command = [sys.executable, "-m", "sluiceway_orchestrator", *options]
        started = subprocess.Popen(command, cwd=folder, env=os.environ | NO_HTTP | dict(variables or {}))
        try:
            os.sched_setaffinity(started.pid, {core})
            yield psutil.Process(started.pid), f"127.0.0.1:{port}"
        finally:
            started.terminate()
            started.wait()


# The client.


async def throughput(address: str, seconds: float, in_flight: int) -> float:
    """Images a second, each a job of its own; every job is checked for its five messages."""
    request = process_request()
    said = metadata_of(request)
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        call_process = channel.unary_stream(PROCESS)
        done = 0
        end = 0.0

        async def client() -> None:
            nonlocal done
            while time.monotonic() < end:
                call = call_process(request, timeout=30, metadata=said)
                events = [event async for event in call]
                if len(events) < 5 or pipeline_pb2.ProcessResponse.FromString(events[-1]).job_done.succeeded != 1:
                    raise RuntimeError(f"a job gave {len(events)} events: {events[-1]!r}")
                done += 1

        # The first calls open connections and are not counted.
        end = time.monotonic() + 0.5
        await asyncio.gather(*(client() for _ in range(in_flight)))
        done, started = 0, time.monotonic()
        end = started + seconds
        await asyncio.gather(*(client() for _ in range(in_flight)))
        return done / (time.monotonic() - started)


async def latency_ms(address: str, calls: int) -> float:
    """Median of one image at a time."""
    request = process_request()
    said = metadata_of(request)
    times = []
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        call_process = channel.unary_stream(PROCESS)
        for _ in range(calls):
            started = time.perf_counter()
            async for _event in call_process(request, timeout=30, metadata=said):
                pass
            times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[calls // 5 :])


async def direct_latency_ms(detection: str, recognition: str, calls: int) -> float:
    """Median of the same two calls made by the client itself."""
    detect_bytes = detect_request()
    crops = detection_pb2.DetectResponse.FromString(detect_response()).crops
    recognize_bytes = recognition_pb2.RecognizeRequest(crops=crops).SerializeToString()
    times = []
    async with (
        grpc.aio.insecure_channel(detection, options=OPTIONS) as first,
        grpc.aio.insecure_channel(recognition, options=OPTIONS) as second,
    ):
        detect, recognize = first.unary_unary(DETECT), second.unary_unary(RECOGNIZE)
        for _ in range(calls):
            started = time.perf_counter()
            await detect(detect_bytes)
            await recognize(recognize_bytes)
            times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[calls // 5 :])


async def wait_until_served(address: str) -> None:
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        call = channel.unary_stream(PROCESS)
        for _ in range(100):
            try:
                async for _event in call(process_request(), timeout=5, wait_for_ready=True):
                    pass
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)
            else:
                return
    raise RuntimeError(f"nothing serves at {address}")


async def measure(seconds: float, rounds: int) -> dict[str, float]:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("needs two cores")
    middle, others = cores[0], cores[1]
    os.sched_setaffinity(0, {others})
    with ExitStack() as stack:
        _, detection = stack.enter_context(process("--role", "detection", core=others))
        _, recognition = stack.enter_context(process("--role", "recognition", core=others))
        ours_process, ours = stack.enter_context(orchestrator(detection, recognition, middle))
        proxy_arguments = ("--role", "proxy", "--detection", detection, "--recognition", recognition)
        proxy_process, proxy = stack.enter_context(process(*proxy_arguments, core=middle))
        await wait_until_served(ours)
        await wait_until_served(proxy)
        rates: dict[str, list[tuple[float, float]]] = {"ours": [], "proxy": []}
        # In turns, so that what else happens on the machine meets both.
        for _ in range(rounds):
            for name, address, middle_process in (("ours", ours, ours_process), ("proxy", proxy, proxy_process)):
                before = sum(middle_process.cpu_times()[:2])
                images_per_s = await throughput(address, seconds, IN_FLIGHT)
                cpu_s = sum(middle_process.cpu_times()[:2]) - before
                rates[name].append((images_per_s, cpu_s * 1000 / (images_per_s * (seconds + 0.5))))
        latencies = [
            (await latency_ms(ours, 150), await direct_latency_ms(detection, recognition, 150)) for _ in range(rounds)
        ]
    ours_rate, proxy_rate = (max(rate for rate, _ in rates[name]) for name in ("ours", "proxy"))
    return {
        "images_per_s": ours_rate,
        "proxy_images_per_s": proxy_rate,
        "of_proxy": ours_rate / proxy_rate,
        "cpu_ms_per_image": min(cpu for _, cpu in rates["ours"]),
        "proxy_cpu_ms_per_image": min(cpu for _, cpu in rates["proxy"]),
        "latency_ms": min(mine for mine, _ in latencies),
        "direct_latency_ms": min(direct for _, direct in latencies),
        "added_latency_ms": min(mine for mine, _ in latencies) - min(direct for _, direct in latencies),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--role", choices=("detection", "recognition", "proxy", "collector"), help=argparse.SUPPRESS)
    parser.add_argument("--host", default="127.0.0.1", help=argparse.SUPPRESS)
    parser.add_argument("--detection", help=argparse.SUPPRESS)
    parser.add_argument("--recognition", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role == "proxy":
        asyncio.run(serve_proxy(arguments.detection, arguments.recognition))
    elif arguments.role == "collector":
        collect()
    elif arguments.role:
        asyncio.run(serve_stage(arguments.role, arguments.host))
    figures = {
        name: round(value, 3) for name, value in asyncio.run(measure(arguments.seconds, arguments.rounds)).items()
    }
    failed = [
        f"{name} = {figures[name]} is not {sign} {bar}"
        for name, (sign, bar) in BARS.items()
        if not (figures[name] >= bar if sign == ">=" else figures[name] <= bar)
    ]
    text = json.dumps(
        {"figures": figures, "bars": {name: f"{sign} {bar}" for name, (sign, bar) in BARS.items()}}, indent=2
    )
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
