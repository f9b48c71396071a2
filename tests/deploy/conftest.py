"""Steady load with a ledger, and waiting for a condition."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest
from sluiceway_runtime.weights import pull_samples
from waiting import wait_until

from sluiceway.client import AsyncClient, Result, RetryPolicy, Tls
from sluiceway.errors import SluicewayError

# A request under load shares two cores with everything else that a test machine does.
REQUEST_TIMEOUT_S = 60.0
FIGURES = pytest.StashKey[list[str]]()


@dataclass
class Ledger:
    """What became of every request, by the client's own account.

    Attributes:
        finished_s: when each answer was there.
        failures: requests that failed, and answers with texts missing.
        models: answers by what found and what read their regions.
        regions: what numbers of regions each model found, of answers that one version of each stage made.
    """

    finished_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    models: Counter[tuple[str, ...]] = field(default_factory=Counter)
    regions: dict[str, set[int]] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Take an answer down."""
        assert result.regions
        unread = sum(region.text is None for region in result.regions)
        if unread:
            self.failures.append(f"{unread} of {len(result.regions)} regions without text")
        names = tuple(model.name for model in result.models)
        self.models[names] += 1
        # A source whose version went away was begun again by another one, and has regions of both.
        if all(len(step.models) == 1 for step in result.steps):
            for name in names:
                self.regions.setdefault(name, set()).add(len(result.regions))
        self.finished_s.append(time.monotonic())

    def rate(self, since_s: float, until_s: float) -> float:
        """Requests that succeeded in a second, between two moments."""
        return sum(since_s <= moment < until_s for moment in self.finished_s) / (until_s - since_s)


@dataclass
class Load:
    """Clients in a thread of their own, each sending the next image when the last one is done."""

    address: str
    image: bytes
    clients: int
    tls: Tls | None = None
    token: str | None = None
    patient: bool = False
    ledger: Ledger = field(default_factory=Ledger)
    _stopped: threading.Event = field(default_factory=threading.Event)

    async def _client(self) -> None:
        # Each with a channel of its own. Unless they are patient, as the library is by default, none tries again: a
        # request that fails once has failed.
        retry = RetryPolicy() if self.patient else RetryPolicy(attempts=1)
        async with AsyncClient(self.address, tls=self.tls, token=self.token, retry=retry) as client:
            while not self._stopped.is_set():
                try:
                    result = await client.process(self.image, timeout_s=REQUEST_TIMEOUT_S)
                except SluicewayError as error:
                    self.ledger.failures.append(f"{type(error).__name__}: {error}")
                    await asyncio.sleep(0.2)
                else:
                    self.ledger.add(result)

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self.clients):
                group.create_task(self._client())

    @contextmanager
    def running(self) -> Iterator[Ledger]:
        """Keep the load up inside the block; on leaving it every request is waited for."""
        problems: list[BaseException] = []

        def run() -> None:
            try:
                asyncio.run(self._all())
            except BaseException as error:  # told to the test below
                problems.append(error)

        thread = threading.Thread(target=run, name="load")
        thread.start()
        try:
            yield self.ledger
        finally:
            self._stopped.set()
            thread.join()
        if problems:
            raise problems[0]


def wait_for(what: str, condition: Callable[[], Any], timeout_s: float, every_s: float = 0.2) -> float:
    """Seconds until the condition held.

    Raises:
        AssertionError: it did not in time.
    """
    begin = time.monotonic()
    wait_until(condition, what=what, within_s=timeout_s, every_s=every_s)
    return time.monotonic() - begin


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="session")
def make_load() -> type[Load]:
    return Load


@pytest.fixture(scope="session")
def until() -> Callable[..., float]:
    return wait_for


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A photograph in which the default models find something to read."""
    [path] = pull_samples(["bus.jpg"]).values()
    return Path(path).read_bytes()


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes figures, which are printed at the end of the run."""
    return request.config.stash.setdefault(FIGURES, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(FIGURES, [])
    if lines:
        terminalreporter.section("figures")
    for line in lines:
        terminalreporter.write_line(line)
