"""`sluiceway top` and a small cluster of real servers: what it says when they are loaded or die, and what it costs."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
from ledger_models import Deed, draw
from pseudo_terminal import COMMAND, type_command
from rich.text import Text
from server_processes import Fleet, Member

from sluiceway import AsyncClient
from sluiceway.cli.top import explaining
from sluiceway.figures import ClusterFigures, StageFigures

pytestmark = pytest.mark.timeout(300)


# What is said of a cluster that could do more; beside other tests it may have to wait for a CPU.
CALM = {"idle", "nothing", "starved"}


@dataclass
class Servers:
    detection: Member
    recognition: Member
    orchestrator: Member
    loads_while: Path
    """A recognition worker loads its model as long as this file is there."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("top")
    loads_while = folder / "loads"
    with Fleet(folder) as fleet:
        [detection], [recognition], orchestrator = fleet.cluster(environment={"LEDGER_LOADS_WHILE": str(loads_while)})
        yield Servers(detection, recognition, orchestrator, loads_while)


async def until(
    servers: Servers,
    holds: Callable[[ClusterFigures], object],
    *,
    begin: Callable[[], object] | None = None,
    within_s: float = 60.0,
) -> ClusterFigures:
    """Watch until it holds. What begins, begins under the eyes of this watch, which knows of nothing before it."""
    last = None
    try:
        async with (
            asyncio.timeout(within_s),
            AsyncClient(servers.orchestrator.address) as client,
            aclosing(client.watch(0.2)) as all_figures,
        ):
            async for last in all_figures:
                if begin is not None:
                    begin()
                    begin = None
                elif holds(last):
                    return last
    except TimeoutError:
        pytest.fail(f"it never came: {last}")
    raise AssertionError("the figures ended")


def stage(figures: ClusterFigures, name: str) -> StageFigures:
    return next(stage for stage in figures.stages if stage.name == name)


def all_ready(figures: ClusterFigures) -> bool:
    return all(stage.workers_ready == stage.workers > 0 for stage in figures.stages)


def command(servers: Servers, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [*COMMAND, "top", "--address", servers.orchestrator.address, *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


async def load(servers: Servers, picture: bytes, callers: int, done: asyncio.Event) -> None:
    """Callers that each wait for their answer and come again."""
    async with AsyncClient(servers.orchestrator.address) as client:

        async def call() -> None:
            while not done.is_set():
                await client.process(picture)

        await asyncio.gather(*(call() for _ in range(callers)))


@pytest.mark.parametrize(
    ("deed", "busy"), [(Deed.SLOW, "detection"), (Deed.READ_SLOW, "recognition")], ids=["detection", "recognition"]
)
async def test_the_stage_that_has_enough_to_do_is_said_to_limit(servers: Servers, deed: Deed, busy: str) -> None:
    await until(servers, all_ready)
    done = asyncio.Event()
    callers = asyncio.create_task(load(servers, draw(1, 2, deed, 100), 12, done))
    try:
        found = await until(servers, lambda found: found.limits[0].kind == "workers")
        assert found.limits[0].subject == busy
        assert re.match(r"2 of 2 workers busy \d+%", found.limits[0].what)
        assert f"{busy}.workers, --scale {busy}=2" in found.limits[0].help
        found = await until(
            servers, lambda found: (stage(found, busy).wait_ms or stage(found, busy).backlog) and found.window_s > 2
        )
        limiting = stage(found, busy)
        assert limiting.busy is not None
        assert limiting.busy > 0.85
        assert limiting.rate is not None
        assert limiting.rate > 1
        assert limiting.p50_ms is not None
        assert limiting.p50_ms > 90
        assert limiting.batch is not None
        assert found.orchestrator.p99_ms is not None
        assert found.orchestrator.p99_ms > limiting.p50_ms
        [replica] = limiting.replicas
        assert replica.front is not None
        assert replica.front.memory_bytes > 2**20
        assert {worker.state for worker in replica.workers} == {"ready"}
        assert sum(worker.rate or 0.0 for worker in replica.workers) == pytest.approx(limiting.rate, rel=0.3)
        server = servers.detection if busy == "detection" else servers.recognition
        assert {worker.pid for worker in replica.workers} == {worker.pid for worker in server.workers()}
    finally:
        done.set()
        await callers
    await until(servers, lambda found: found.limits[0].kind in CALM)


async def test_a_worker_that_dies_is_seen(servers: Servers) -> None:
    before = await until(servers, all_ready)
    victim = servers.recognition.workers()[0]
    restarts = stage(before, "recognition").restarts
    assert restarts is not None
    found = await until(
        servers, lambda found: "workers_failing" in [limit.kind for limit in found.limits], begin=victim.kill
    )
    assert (stage(found, "recognition").restarts or 0) > restarts
    assert stage(found, "detection").restarts == stage(before, "detection").restarts
    [failing] = [limit for limit in found.limits if limit.kind == "workers_failing"]
    assert failing.subject == "recognition"
    assert failing.fault
    found = await until(servers, all_ready)
    assert victim.pid not in [worker.pid for worker in stage(found, "recognition").replicas[0].workers]


async def test_a_stage_that_dies_is_seen_and_so_is_its_return(servers: Servers) -> None:
    await until(servers, all_ready)
    servers.recognition.kill()
    servers.recognition.process.wait(30)
    gone = await until(servers, lambda found: found.limits[0].kind == "no_replica")
    assert gone.limits[0].subject == "recognition"
    assert servers.recognition.address in gone.limits[0].help
    assert stage(gone, "recognition").ready == 0
    # Of what is there all is known.
    assert stage(gone, "detection").workers_ready == 2
    done = command(servers, "--once", "--interval", "0.2")
    assert done.returncode == 0
    assert done.stdout.startswith("! recognition: no replica is ready")
    assert "away" in done.stdout
    servers.loads_while.touch()
    starting = await until(
        servers,
        lambda found: stage(found, "recognition").replicas[0].state == "starting",
        begin=lambda: servers.recognition.start(wait=False),
    )
    assert "is starting" in starting.limits[0].what
    servers.loads_while.unlink()
    await until(servers, lambda found: found.limits[0].kind in CALM)
    servers.recognition.wait_ready()


def test_one_look_for_scripts(servers: Servers) -> None:
    done = command(servers, "--json", "--interval", "0.2")
    assert (done.returncode, done.stderr) == (0, "")
    [line] = done.stdout.splitlines()
    told = json.loads(line)
    assert told["limits"][0]["kind"] in CALM
    assert [stage["name"] for stage in told["stages"]] == ["detection", "recognition"]
    assert len(told["stages"][0]["replicas"][0]["workers"]) == 2
    # A pipe is no terminal: the same as --once.
    for arguments in (["--once"], []):
        done = command(servers, *arguments, "--interval", "0.2")
        assert (done.returncode, done.stderr) == (0, "")
        limits, _, table = done.stdout.partition("\n\n")
        assert limits
        assert servers.detection.address in table


@pytest.mark.parametrize("columns", [60, 120])
def test_it_runs_in_a_terminal(servers: Servers, columns: int) -> None:
    """Whatever its width, with colours and without; q leaves it, and the terminal is as it was."""
    for variables in ({}, {"NO_COLOR": "1", "TERM": "xterm"}):
        typed = type_command(
            ["top", "--address", servers.orchestrator.address, "--interval", "0.2"],
            columns=columns,
            keys=("recognition", b"q"),
            **variables,
        )
        assert typed.code == 0
        assert "What limits now" in typed.terminal
        # The other screen is left, and the cursor is shown again.
        assert typed.terminal.rindex("\x1b[?1049l") > typed.terminal.rindex("\x1b[?1049h")
        assert typed.terminal.rindex("\x1b[?25h") > typed.terminal.rindex("\x1b[?25l")


async def test_being_watched_costs_next_to_nothing(servers: Servers) -> None:
    """At one look a second less than 1% of a CPU, of the orchestrator and of each stage, beside nobody watching."""
    members: Sequence[Member] = (servers.detection, servers.recognition, servers.orchestrator)
    await until(servers, all_ready)
    seconds = 6

    def used_s() -> list[float]:
        return [_cpu_s(member.process.pid) for member in members]

    begun = used_s()
    await asyncio.sleep(seconds)
    alone = [now - then for then, now in zip(begun, used_s(), strict=True)]
    async with AsyncClient(servers.orchestrator.address) as client, aclosing(client.watch(1.0)) as all_figures:
        await anext(all_figures)
        begun = used_s()
        for _ in range(seconds):
            await anext(all_figures)
        watched = [now - then for then, now in zip(begun, used_s(), strict=True)]
    for member, less, more in zip(members, alone, watched, strict=True):
        print(f"{member.section}: {1000 * less / seconds:.1f} ms a second alone, {1000 * more / seconds:.1f} watched")
        assert (more - less) / seconds < 0.01, f"{member.section}: {less:.3f} s alone, {more:.3f} s watched"


def _cpu_s(pid: int) -> float:
    """What all threads of a process have used, to the microsecond."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


async def test_the_story_of_a_request_is_told_on_its_screen(servers: Servers) -> None:
    async with AsyncClient(servers.orchestrator.address) as client:
        result = await client.process(draw(1, 2, Deed.SLOW, 1))
        tell = explaining(client)
        told = Text.from_ansi(await tell(result.request_id, 80)).plain
        assert result.request_id in told
        assert all(step in told for step in ("text", "words"))
        assert max(map(len, told.splitlines())) <= 80
        assert "no server remembers a request nobody-s" in await tell("nobody-s", 80)


def test_the_address_of_a_stage_is_told_to_be_one(servers: Servers) -> None:
    done = subprocess.run(
        [*COMMAND, "top", "--once", "--address", servers.detection.address],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "is no orchestrator" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_certificate_without_its_key_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("")
    words = [*COMMAND, "top", "--cert", str(tmp_path / "cert.pem")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--cert and --key belong together" in done.stderr
