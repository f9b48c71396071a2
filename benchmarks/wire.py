"""What carrying crops costs: recognition servers whose model costs nothing, driven over loopback.

    python benchmarks/wire.py [--fronts N] [--clients C] [--json FILE]

Prints crops a second, and the CPU time of a crop in the server's front and in its workers: the yardstick where cores
are shared, as neighbours disturb it less than wall time. `--fronts N` starts N servers, over which the clients spread
their requests.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from sluiceway.recognition.v1 import recognition_pb2 as pb
from sluiceway.recognition.v1 import recognition_pb2_grpc

sys.path.insert(0, str(Path(__file__).parent / "support"))

from recognition_load import Clients, Load, Sample, cpu_s, main_thread_s, switches

START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Front:
    """A recognition server of this benchmark, and its workers."""

    pid: int
    address: str

    @property
    def workers(self) -> list[int]:
        """Process ids of what it started."""
        return [
            int(pid)
            for task in Path(f"/proc/{self.pid}/task").iterdir()
            for pid in (task / "children").read_text(encoding="ascii").split()
        ]


@contextmanager
def front(workers: int, batch: int, python: Sequence[str] = (sys.executable,)) -> Iterator[Front]:
    """Run a server with the instant recogniser.

    Args:
        workers: how many processes.
        batch: most crops in a batch.
        python: the interpreter, and its options.
    """
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        port, operations = first.getsockname()[1], second.getsockname()[1]
    support = str(Path(__file__).parent / "support")
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write(
            f"[recognition]\nport = {port}\noperations_port = {operations}\nworkers = {workers}\ndevice = 'cpu'\n"
            f"max_batch = {batch}\nqueue_items = 4096\nthreads_per_worker = 1\nlog_level = 'warning'\n"
            "drain_notice_s = 0\n"
            "[[recognition.models]]\nname = 'instant'\nrecognizer = 'instant:InstantRecogniser'\n"
        )
        config.flush()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([support, os.environ.get("PYTHONPATH", "")])}
        process = subprocess.Popen([*python, "-m", "sluiceway_recognition", "--config", config.name], env=environment)
        try:
            _wait_ready(process, f"127.0.0.1:{port}")
            yield Front(process.pid, f"127.0.0.1:{port}")
        finally:
            process.terminate()
            try:
                process.wait(15)
            finally:
                process.kill()


def _wait_ready(process: subprocess.Popen[bytes], address: str) -> None:
    end_s = time.monotonic() + START_TIMEOUT_S
    with grpc.insecure_channel(address) as channel:
        describe = recognition_pb2_grpc.RecognitionServiceStub(channel).Describe
        while time.monotonic() < end_s:
            if process.poll() is not None:
                raise SystemExit("the server did not start")
            try:
                if describe(pb.DescribeRequest(), timeout=1).models:
                    return
            except grpc.RpcError:
                pass
            time.sleep(0.05)
    raise SystemExit("the server did not become ready")


def measure(fronts: Sequence[Front], load: Load, seconds: float) -> tuple[Sample, dict[str, float]]:
    """One stretch of load.

    Returns:
        What the clients saw, and per crop the CPU time in microseconds by side, and the fronts' voluntary switches.
    """

    def meter() -> Mapping[str, float]:
        return {
            "front_us": sum(cpu_s(front.pid) for front in fronts),
            "front_loop_us": sum(main_thread_s(front.pid) for front in fronts),
            "worker_us": sum(cpu_s(pid) for front in fronts for pid in front.workers),
            "front_switches": sum(switches(front.pid) for front in fronts) / 1e6,
        }

    with Clients(load) as clients:
        sample = clients.measure(seconds, meter)
    return sample, {name: spent_s * 1e6 / max(sample.crops, 1) for name, spent_s in sample.spent_s.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fronts", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="of each front")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--clients", type=int, default=1, help="processes")
    parser.add_argument("--in-flight", type=int, default=6, help="requests of each client")
    parser.add_argument("--crops", type=int, default=64, help="in a request")
    parser.add_argument("--widths", default="160", help="of crops of 48 rows, taken in turn, with commas")
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--json", type=Path, default=Path("out/bench-wire.json"))
    arguments = parser.parse_args()
    with ExitStack() as stack:
        fronts = [stack.enter_context(front(arguments.workers, arguments.batch)) for _ in range(arguments.fronts)]
        load = Load(
            targets=tuple(front.address for front in fronts),
            sizes=tuple((48, int(width)) for width in arguments.widths.split(",")),
            crops=arguments.crops,
            in_flight=arguments.in_flight,
            clients=arguments.clients,
        )
        sample, per_crop = measure(fronts, load, arguments.seconds)
    result = {
        "fronts": arguments.fronts,
        "crops_per_s": sample.crops_per_s,
        "request_ms": sample.request_ms,
        "first_ms": sample.first_ms,
        "refused": sample.refused,
        **per_crop,
    }
    for name, value in result.items():
        print(f"{name:<20}{value:>12.3f}" if isinstance(value, float) else f"{name:<20}{value:>12}")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
