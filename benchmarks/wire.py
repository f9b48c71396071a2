"""What carrying crops costs: recognition servers whose model costs nothing, driven over loopback.

    python benchmarks/wire.py [--fronts N] [--clients C] [--json FILE]

Prints crops a second, and the CPU time of a crop in the server's front and in its workers: the yardstick where cores
are shared, as neighbours disturb it less than wall time. `--fronts N` starts N servers, over which the clients spread
their requests.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))

from recognition_load import Clients, Load, Sample, cpu_s, main_thread_s, switches
from recognition_servers import INSTANT, Server

START_TIMEOUT_S = 60.0


def front(workers: int, batch: int) -> Server:
    """A server with the instant recogniser.

    Args:
        workers: how many processes.
        batch: most crops in a batch.
    """
    settings = {"workers": workers, "max_batch": batch, "queue_items": 4096, "threads_per_worker": 1}
    return Server(
        [INSTANT],
        device="cpu",
        start_timeout_s=START_TIMEOUT_S,
        settings={key: str(value) for key, value in settings.items()},
    )


def measure(fronts: Sequence[Server], load: Load, seconds: float) -> tuple[Sample, dict[str, float]]:
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
