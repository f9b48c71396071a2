"""What goes wrong is seen: the panel that should, moves; the alert that should, fires, and no other.

Real servers, whose models compute nothing, under a light load, and a real Prometheus; in its rules a second stands in
the place of each minute.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ledger_client import calling
from ledger_models import Deed, draw
from ports import free_ports
from prometheus import Prometheus, panels
from server_processes import Fleet, Member
from waiting import wait_until

from benchmarks.support.quota import Quota, quota

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Of a quiet cluster whose alerts of before are over; their windows are of ten seconds, those of the budgets of sixty.
QUIET_S = 150.0
# More than the machine of a test has: what has so many is never stopped.
WIDE_CPUS = 64.0
# For an alert to come that waits for ten seconds of its own, on a busy machine.
SOON_S = 90.0
TOML = """\
[orchestrator]
url_allow_cidrs = ["127.0.0.0/8"]

[api.registry]
url = "http://127.0.0.1:{port}/"
allow_cidrs = ["127.0.0.0/8"]
image = "none"
values = {{ note = "/note" }}
retries = 0

[pipelines.read]
steps = [
  {{ name = "text", stage = "detection" }},
  {{ name = "words", stage = "recognition", of = "text" }},
  {{ name = "note", api = "registry", after = ["words"] }},
]
"""


class Registry:
    """An API of somebody else's."""

    def __init__(self) -> None:
        registry = self
        self.fails = False

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"note": "known"}).encode()
                self.send_response(500 if registry.fails else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Background:
    """Two clients that ask patiently, a few times a second, from a thread of their own."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    async def _run(self) -> None:
        async with calling(self._address) as caller:
            await asyncio.gather(*(self._client(caller, first) for first in (0, 10**6)))

    async def _client(self, caller: Any, number: int) -> None:
        while not self._stop.is_set():
            number += 1
            await caller.ask(number, timeout_s=60)
            await asyncio.sleep(0.1)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join(90)


class Scene:
    """Servers, load and Prometheus."""

    def __init__(self, folder: Path, fleet: Fleet, registry: Registry, quota: Quota) -> None:
        self.registry = registry
        self.fleet = fleet
        [self.http_port] = free_ports(1)
        (folder / "sluiceway.toml").write_text(TOML.format(port=registry.port))
        self.quota = quota
        self.detection = fleet.add("detection", prefix=quota.words)
        self.recognition = fleet.add("recognition")
        self.orchestrator = fleet.add(
            "orchestrator",
            {
                "DETECTION": self.detection.address,
                "RECOGNITION": self.recognition.address,
                "RESOLVE_INTERVAL_S": "0.5",
                "HTTP__ENABLED": "true",
                "HTTP__PORT": str(self.http_port),
                "MAX_JOBS": "8",
            },
        )
        self.members = (self.detection, self.recognition, self.orchestrator)
        for member in self.members:
            member.start(wait=False)
        for member in self.members:
            member.wait_ready()
        targets = {f"sluiceway-{member.section}": [f"127.0.0.1:{member.operations_port}"] for member in self.members}
        self.prometheus = Prometheus(folder, targets)
        self.seen: set[str] = set()

    def quiet(self) -> None:
        """All is well: no alert fires, and images come through."""
        self.seen.clear()
        wait_until(lambda: not self.prometheus.firing(), state=self.prometheus.firing, within_s=QUIET_S)

    def fires(self, *names: str, while_: Callable[[], object] = lambda: None) -> None:
        """Wait until these fire, all at once, and look that nothing else did since it was quiet."""

        def all_fire() -> bool:
            while_()
            firing = self.prometheus.firing()
            self.seen |= firing
            return firing >= set(names)

        wait_until(all_fire, what=f"{names} fire", state=lambda: self.seen, within_s=SOON_S)
        assert self.seen == set(names)

    def refusing(self) -> set[str]:
        """Ports for which SluicewayRefusing fires; noted like every alert."""
        self.seen |= self.prometheus.firing()
        fires = self.prometheus.query('ALERTS{alertname="SluicewayRefusing",alertstate="firing"}')
        return {labels["port"] for labels, _ in fires}

    def moves(self, title: str, above: float, **labels: str) -> None:
        """Wait until a panel shows more than that, and note what fires meanwhile."""

        def moved() -> bool:
            self.seen |= self.prometheus.firing()
            return self.prometheus.panel(title, **labels) > above

        wait_until(moved, what=f"{title} moves", within_s=SOON_S)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("scene")
    registry = Registry()
    try:
        with quota(WIDE_CPUS) as wide, Fleet(folder) as fleet:
            scene = Scene(folder, fleet, registry, wide)
            background = Background(scene.orchestrator.address)
            with scene.prometheus:
                background.start()
                try:
                    yield scene
                finally:
                    for member in scene.members:
                        if member.process.poll() is not None:
                            member.start()
                    background.end()
    finally:
        registry.close()


# Panels that have something to show only where something went wrong, or where there is a GPU or TLS.
AT_TIMES = {
    "Images that failed",
    "Workers replaced",
    "What became of items",
    "Calls of stages made again",
    "Servers that do not answer",
    "Stopped by the CPU quota",
    "GPU",
    "Memory of GPUs",
    "Days until certificates expire",
}


def test_every_panel_has_data_and_every_rule_is_evaluated(scene: Scene) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{scene.http_port}/healthz", timeout=10) as answer:
        assert answer.status == 200
    for title, queries in panels().items():
        for query in queries:
            if title in AT_TIMES:
                scene.prometheus.query(query)
            elif title == "HTTP requests":
                wait_until(
                    lambda query=query: _ask_http(scene) and scene.prometheus.query(query),
                    what=query,
                    within_s=SOON_S,
                )
            else:
                wait_until(lambda query=query: scene.prometheus.query(query), what=query, within_s=SOON_S)
    wait_until(lambda: not scene.prometheus.faulty_rules(), state=scene.prometheus.faulty_rules, within_s=SOON_S)
    scene.quiet()


def _ask_http(scene: Scene) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{scene.http_port}/healthz", timeout=10) as answer:
        return bool(answer.status == 200)


def test_a_worker_that_dies(scene: Scene) -> None:
    scene.quiet()
    [worker, *_] = scene.recognition.workers()
    worker.send_signal(signal.SIGKILL)
    scene.moves("Workers replaced", 0, stage="recognition", reason="died")
    scene.fires("SluicewayWorkersReplaced")


def test_a_stage_that_dies(scene: Scene) -> None:
    scene.quiet()
    scene.recognition.kill()
    scene.recognition.process.wait()
    try:
        scene.moves("Work that waits", 0, stage="recognition")
        scene.fires("SluicewayNoReplica", "SluicewayServerDown")
        assert scene.prometheus.query('sluiceway_stage_ready_replicas{stage="recognition"}')[0][1] == 0
        assert scene.prometheus.panel("Servers that do not answer", job="sluiceway-recognition") == 1
    finally:
        scene.recognition.start()


def test_a_failing_api(scene: Scene) -> None:
    scene.quiet()
    scene.registry.fails = True
    try:
        scene.moves("Calls of APIs and URLs", 0, api="registry", outcome="failed")
        scene.fires("SluicewayApiFails")
    finally:
        scene.registry.fails = False


def test_an_image_that_ends_workers(scene: Scene) -> None:
    scene.quiet()

    async def ask() -> Any:
        async with calling(scene.orchestrator.address) as caller:
            return await caller.ask(77, 1, Deed.CRASH, timeout_s=60)

    asyncio.run(ask())
    scene.moves("What became of items", 0, stage="detection", event="quarantined")
    scene.fires("SluicewayQuarantine")


def test_a_quota_that_is_used_up(scene: Scene) -> None:
    """By something beside the server, which the server goes before: it stands still in every period, and goes on."""
    scene.quiet()
    command = [*scene.quota.words, "nice", "-n", "19", sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(command) as neighbour:
        try:
            scene.quota.limit(0.2)
            scene.moves("Stopped by the CPU quota", 0.25, job="sluiceway-detection")
            scene.fires("SluicewayThrottled")
        finally:
            neighbour.kill()
            scene.quota.limit(WIDE_CPUS)


async def _overload(scene: Scene, stop: threading.Event) -> None:
    async def client(number: int) -> None:
        async with calling(scene.orchestrator.address) as caller:
            while not stop.is_set():
                await caller.ask(number, 1, Deed.SLOW, 50, timeout_s=30)
                await asyncio.sleep(0.05)

    await asyncio.gather(*(client(number) for number in range(16)))


def test_more_over_grpc_than_can_be_done(scene: Scene) -> None:
    scene.quiet()
    stop = threading.Event()
    clients = threading.Thread(target=lambda: asyncio.run(_overload(scene, stop)))
    clients.start()
    try:
        scene.moves("gRPC calls", 0.1, rpc_response_status_code="RESOURCE_EXHAUSTED")
        scene.fires("SluicewayRefusing")
        assert scene.refusing() == {"gRPC"}
    finally:
        stop.set()
        clients.join(60)


def test_more_over_http_than_can_be_done(scene: Scene) -> None:
    scene.quiet()
    stop = threading.Event()
    picture = draw(5, 1, Deed.SLOW, 50)

    def client() -> None:
        while not stop.is_set():
            request = urllib.request.Request(
                f"http://127.0.0.1:{scene.http_port}/v1/process", picture, {"Content-Type": "image/png"}
            )
            try:
                urllib.request.urlopen(request, timeout=60).close()
            except urllib.error.HTTPError as refusal:
                refusal.close()
                stop.wait(0.05)

    with ThreadPoolExecutor(16) as clients:
        asked = [clients.submit(client) for _ in range(16)]
        try:
            scene.moves("HTTP requests", 0.1, http_route="/v1/process", http_response_status_code="429")
            # The light load of this scene comes over gRPC, and has as few places as everybody.
            wait_until(lambda: "HTTP" in scene.refusing(), state=scene.refusing, within_s=SOON_S)
            scene.fires("SluicewayRefusing")
        finally:
            stop.set()
        for done in asked:
            done.result(60)


def test_every_server_gone(scene: Scene) -> None:
    scene.quiet()
    members: tuple[Member, ...] = scene.members
    for member in members:
        member.kill()
        member.process.wait()
    try:
        scene.moves("Servers that do not answer", 0)
        scene.fires("SluicewayGone", "SluicewayServerDown")
    finally:
        for member in members:
            member.start(wait=False)
        for member in members:
            member.wait_ready()
