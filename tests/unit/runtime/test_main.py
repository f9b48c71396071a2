"""A server's process, where the service is only a pretence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SERVER = """
import asyncio, atexit, time
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.server.main import run_service

class Config(ServerConfig):
    port: int = 0
    operations_port: int = 0

class Service:
    names = ()

    def __init__(self, config, installation):
        pass

    def register(self, server):
        pass

    def collectors(self, registry):
        pass

    def status(self):
        return {}

    async def start(self):
        thread = asyncio.create_task(asyncio.to_thread(time.sleep, 60))
        print("fetching", flush=True)
        if {waits}:
            await thread

    def ready(self):
        return True

    def refuse(self):
        pass

    async def drain(self, grace_s):
        return True

    async def close(self):
        print("closed", flush=True)

# Code of users may have something to do at the end.
atexit.register(print, "the end")
run_service("detection", Config, Service, [])
"""


@pytest.mark.parametrize("waits", [True, False], ids=["of its start", "of something else"])
def test_a_server_told_to_stop_waits_for_no_thread(waits: bool) -> None:
    """Weights are fetched in threads and names looked up, and nothing can interrupt that."""
    script = SERVER.replace("{waits}", str(waits))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline() == "fetching\n"
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0
            assert server.stdout.read() == "closed\nthe end\n"
        finally:
            server.kill()


def test_the_first_signal_after_the_parent_has_gone_lets_the_server_drain() -> None:
    """A supervisor ends what is left of a group. The server is stopping already, and was not told twice."""
    script = SERVER.replace("{waits}", "False").replace(
        "        return True\n\n    async def close",
        "        print('draining', flush=True)\n"
        "        await asyncio.to_thread(sys.stdin.readline)\n"
        "        return True\n\n    async def close",
    )
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", f"import sys{script}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=(reading,),
        env=os.environ | {"SLUICEWAY_PARENT_PIPE": str(reading)},
    ) as server:  # fmt: skip
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            os.close(reading)
            assert server.stdout.readline() == "fetching\n"
            os.close(writing)
            assert server.stdout.readline() == "draining\n"
            server.send_signal(signal.SIGTERM)
            server.stdin.write("\n")
            server.stdin.flush()
            assert server.wait(30) == 0
            assert server.stdout.read() == "closed\nthe end\n"
        finally:
            server.kill()


STAGES = """
[detection]
port = 1
[stages.plates]
kind = "detection"
target = "dns:///plates:50052"
log_level = "debug"
[stages.letters]
kind = "recognition"
"""
SHOW = """
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.server.main import run_service

class Config(ServerConfig):
    port: int = 0
    operations_port: int = 0

def show(config, installation):
    print(installation.stage, config.port, config.log_level, *installation.stages, flush=True)
    raise StartupError("enough is known")

run_service("{program}", Config, show)
"""


def serve(tmp_path: Path, program: str, *arguments: str) -> tuple[str, str]:
    """What a server that is started like this shows of its configuration, and what it says."""
    (tmp_path / "sluiceway.toml").write_text(STAGES)
    command = [sys.executable, "-c", SHOW.replace("{program}", program), *arguments]
    environment = os.environ | {"SLUICEWAY_STAGES__PLATES__PORT": "7"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    return done.stdout.strip(), done.stderr.strip()


@pytest.mark.parametrize(
    ("program", "arguments", "shown"),
    [
        ("detection", [], "detection 1 info"),
        ("detection", ["--stage", "detection"], "detection 1 info"),
        ("detection", ["--stage", "plates"], "plates 7 debug"),
        ("detection", ["--stage", "plates", "--set", "port=8"], "plates 8 debug"),
        ("orchestrator", [], "0 info"),
    ],
)
def test_a_program_serves_any_stage_of_its_kind(tmp_path: Path, program: str, arguments: list[str], shown: str) -> None:
    assert serve(tmp_path, program, *arguments)[0] == f"{shown} detection recognition plates letters"


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        (
            "detection",
            ["--stage", "letters"],
            "sluiceway letters: stages.letters.kind: is recognition, and this server is for detection",
        ),
        (
            "detection",
            ["--stage", "plaits"],
            "sluiceway plaits: stages.plaits: is not configured; there are detection, recognition, plates, letters",
        ),
        (
            "detection",
            ["--stage", "plates", "--set", "kind=detection"],
            "sluiceway plates: stages.plates.kind: unknown key",
        ),
        ("orchestrator", ["--stage", "plates"], "unrecognized arguments: --stage plates"),
    ],
)
def test_a_stage_that_the_program_cannot_serve_is_told(
    tmp_path: Path, program: str, arguments: list[str], said: str
) -> None:
    assert serve(tmp_path, program, *arguments)[1].endswith(said)
