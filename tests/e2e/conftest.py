"""The real thing: `sluiceway up` as a person starts it, with the models that ship as defaults."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from ports import free_ports

HERE = Path(__file__).parent
START_TIMEOUT_S = 240
SECTIONS = ("detection", "recognition", "orchestrator")
COMMAND = [sys.executable, "-m", "sluiceway.cli"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Models are fetched, and whole clusters started: on a slow machine that takes longer than a test may."""
    for item in items:
        if item.path.parent == HERE and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(400))


@dataclass
class Up:
    """A running `sluiceway up`."""

    process: subprocess.Popen[str]
    address: str
    http: str
    operations: dict[str, int]
    ports: dict[str, int]
    lines: list[str] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)
    started_s: float = field(default_factory=time.monotonic)

    def listen(self) -> None:
        assert self.process.stderr
        with self.process.stderr as stderr:
            for line in stderr:
                self.lines.append(line.rstrip())
                if line.startswith("ready on") or '"message": "ready on ' in line:
                    self.ready.set()
        self.ready.set()

    def status(self, section: str) -> dict[str, Any]:
        """What the server says of itself on its operations port."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.operations[section]}/statusz", timeout=5) as answer:
            return json.load(answer)

    def servers(self) -> dict[str, psutil.Process]:
        """The three server processes by section, from the process table."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            # One that has just died has no command line any more.
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {section: child for section in SECTIONS if f"sluiceway_{section}" in child.cmdline()}
        return found

    def stop(self, number: int = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


class Starter:
    """Starts clusters on ports of their own and sees that none is left."""

    def __init__(self) -> None:
        self._running: list[Up] = []

    def __call__(self, config: Path | None = None, **variables: str) -> Up:
        ports = free_ports(7)
        names = [f"SLUICEWAY_{section}__{key}".upper() for section in SECTIONS for key in ("port", "operations_port")]
        names.append("SLUICEWAY_ORCHESTRATOR__HTTP__PORT")
        environment = os.environ | dict(zip(names, map(str, ports), strict=True)) | variables
        process = subprocess.Popen(
            [*COMMAND, "up", *(("--config", str(config)) if config else ())],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            # Without the terminal of whoever runs the tests, where there is one.
            start_new_session=True,
        )
        operations = dict(zip(SECTIONS, ports[1:6:2], strict=True))
        own = dict(zip(SECTIONS, ports[:6:2], strict=True))
        up = Up(process, f"127.0.0.1:{ports[4]}", f"127.0.0.1:{ports[6]}", operations, own)
        self._running.append(up)
        threading.Thread(target=up.listen, daemon=True).start()
        assert up.ready.wait(START_TIMEOUT_S), "\n".join(up.lines)
        assert process.poll() is None, "\n".join(up.lines)
        return up

    def close(self) -> None:
        for up in self._running:
            up.stop()


@pytest.fixture
def start_up() -> Iterator[Starter]:
    """Start clusters for one test."""
    starter = Starter()
    yield starter
    starter.close()


@pytest.fixture(scope="module")
def start_up_once() -> Iterator[Starter]:
    """Start clusters for the tests of one module."""
    starter = Starter()
    yield starter
    starter.close()


@pytest.fixture(scope="session")
def up() -> Iterator[Up]:
    """One cluster for all tests that only use it. Two workers a stage, whatever the machine."""
    starter = Starter()
    yield starter(SLUICEWAY_DETECTION__WORKERS="2", SLUICEWAY_RECOGNITION__WORKERS="2")
    starter.close()


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with bus.jpg, page.png and a file that is no image."""
    folder = tmp_path_factory.mktemp("samples")
    command = [*COMMAND, "samples", "pull", "bus.jpg", "page.png", "--to", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (folder / "notes.txt").write_text("not an image\n")
    return folder


@pytest.fixture
def copy_samples(samples: Path, tmp_path: Path) -> Path:
    """The same in a folder that a test may change."""
    return Path(shutil.copytree(samples, tmp_path / "samples"))
