"""Starting, watching and stopping server processes, with small servers that do as they are told."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from ports import free_ports
from sluiceway_cluster import Cluster, ClusterError, ClusterPlan, ServerSpec, ServerState
from sluiceway_cluster import cluster as cluster_module
from sluiceway_cluster.process import ServerProcess
from waiting import until

# Speaks the probe's HTTP, ends with its parent's pipe, and notes in a common file what happens to it.
SERVER = textwrap.dedent(
    """
    import asyncio, os, signal, sys

    name, journal = os.environ["NAME"], os.environ["JOURNAL"]

    def note(what):
        with open(journal, "a") as file:
            file.write(f"{name} {what}\\n")

    async def answer(reader, writer):
        await reader.readline()
        ready = os.path.exists(os.environ.get("GATE", "/"))
        writer.write(b"HTTP/1.0 200 OK\\r\\n\\r\\nready\\n" if ready else b"HTTP/1.0 503 No\\r\\n\\r\\nstarting\\n")
        await writer.drain()
        writer.close()

    async def main():
        print(name, "says hello", flush=True)
        note("start")
        if os.environ.get("FAIL"):
            print("no such model: nano", flush=True)
            sys.exit(2)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        def told(what):
            note(what)
            stop.set()
        loop.add_signal_handler(signal.SIGTERM, told, "term")
        loop.add_reader(int(os.environ["SLUICEWAY_PARENT_PIPE"]), told, "orphaned")
        await asyncio.start_server(answer, "127.0.0.1", int(os.environ["PORT"]))
        if not os.environ.get("STUBBORN"):
            await stop.wait()
        else:
            await asyncio.sleep(600)
        note("end")

    asyncio.run(main())
    """
)
NAMES = ("detection", "recognition", "orchestrator")


@pytest.fixture
def specs(tmp_path: Path) -> list[ServerSpec]:
    (tmp_path / "obedient_server.py").write_text(SERVER)
    return [make_spec(name, tmp_path) for name in NAMES]


def make_spec(name: str, folder: Path, **variables: str) -> ServerSpec:
    [port] = free_ports(1)
    environment = {
        **os.environ,
        "NAME": name,
        "PORT": str(port),
        "JOURNAL": str(folder / "journal"),
        "PYTHONPATH": str(folder),
        **variables,
    }
    return ServerSpec(name, "obedient_server", f"127.0.0.1:{port}", ("127.0.0.1", port), environment, None, 5)


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    files = open_files()
    yield
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert left == []
    # Pipes of processes that have ended are closed in the next turns of the loop.
    await until(lambda: open_files() <= files + 1)


def journal(folder: Path) -> list[str]:
    return (folder / "journal").read_text().splitlines()


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_ports_that_others_listen_on_are_told_before_anything_starts(
    specs: list[ServerSpec], tmp_path: Path
) -> None:
    """The other's probe would answer for the server that cannot start because of it."""
    said = rf"port {specs[1].operations[1]} \(recognition.operations_port\) is in use"
    with socket.create_server(specs[1].operations), pytest.raises(ClusterError, match=said):
        async with Cluster(specs):
            pass
    assert not (tmp_path / "journal").exists()


async def test_all_are_ready_inside_and_gone_after(specs: list[ServerSpec], tmp_path: Path) -> None:
    states: list[ServerState] = []
    logs: list[tuple[str, str]] = []
    async with Cluster(specs, on_state=states.append, on_log=lambda *line: logs.append(line)) as cluster:
        pids = [pid for pid in cluster.pids.values() if pid]
        assert len(set(pids)) == 3
        assert {state.name for state in states if state.state == "ready"} == set(NAMES)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert sorted(logs) == sorted((name, f"{name} says hello") for name in NAMES)


async def test_the_orchestrator_ends_before_the_stages_are_told(specs: list[ServerSpec], tmp_path: Path) -> None:
    async with Cluster(specs):
        pass
    ends = journal(tmp_path)[3:]
    assert ends[:2] == ["orchestrator term", "orchestrator end"]
    assert set(ends[2:]) == {f"{name} {what}" for name in NAMES[:2] for what in ("term", "end")}


async def test_a_server_that_cannot_start_is_quoted_and_the_others_stop(
    specs: list[ServerSpec], tmp_path: Path
) -> None:
    specs[1] = make_spec("recognition", tmp_path, FAIL="1")
    with pytest.raises(ClusterError, match=r"recognition server could not start \(exit code 2\)") as caught:
        async with Cluster(specs):
            pass
    assert "no such model: nano" in str(caught.value)


async def test_a_server_that_dies_is_replaced(
    specs: list[ServerSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "FIRST_RESTART_DELAY_S", 0.01)
    states: list[ServerState] = []
    async with Cluster(specs, on_state=states.append) as cluster:
        watching = asyncio.create_task(cluster.watch())
        old = cluster.pids["detection"]
        assert old
        os.kill(old, signal.SIGKILL)
        await until(lambda: [item.state for item in states if item.name == "detection"].count("ready") == 2)
        assert cluster.pids["detection"] != old
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    died = next(item for item in states if item.state == "died")
    assert "the detection server died (exit code -9)" in died.detail
    assert "detection says hello" in died.detail


async def test_a_server_that_dies_too_often_ends_the_watch(
    specs: list[ServerSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "FIRST_RESTART_DELAY_S", 0.001)
    monkeypatch.setattr(cluster_module, "MAX_RESTARTS", 1)
    states: list[ServerState] = []
    async with Cluster(specs, on_state=states.append) as cluster:
        watching = asyncio.create_task(cluster.watch())
        for round_number in (1, 2):
            await until(
                lambda count=round_number: (
                    [item.state for item in states if item.name == "detection"].count("ready") == count
                )
            )
            pid = cluster.pids["detection"]
            assert pid
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(ClusterError, match="It died 2 times"):
            await asyncio.wait_for(watching, 30)


async def test_a_server_that_does_not_obey_is_killed(
    specs: list[ServerSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs[0] = replace(make_spec("detection", tmp_path, STUBBORN="1"), grace_s=600)
    cluster = Cluster(specs)
    await cluster.start()
    pid = cluster.pids["detection"]
    assert pid
    stopping = asyncio.create_task(cluster.stop())
    try:
        await until(lambda: {"detection term", "recognition end"} <= set(journal(tmp_path)))
        assert psutil.pid_exists(pid)
        # More than its grace passes for every timer of this loop, and none for the machine.
        loop = asyncio.get_running_loop()
        clock = loop.time
        monkeypatch.setattr(loop, "time", lambda: clock() + 700)
    finally:
        await asyncio.wait_for(stopping, 60)
    assert not psutil.pid_exists(pid)
    assert "detection end" not in journal(tmp_path)


OWNER = textwrap.dedent(
    """
    import asyncio, os, sys
    sys.path.insert(0, sys.argv[1])
    from sluiceway_cluster import Cluster, ServerSpec

    async def main():
        specs = [
            ServerSpec(name, "obedient_server", f"127.0.0.1:{port}", ("127.0.0.1", int(port)),
                       {**os.environ, "NAME": name, "PORT": port}, None, 5)
            for name, port in zip(("detection", "recognition", "orchestrator"), sys.argv[2:])
        ]
        async with Cluster(specs) as cluster:
            print(*cluster.pids.values(), flush=True)
            await asyncio.sleep(600)

    asyncio.run(main())
    """
)


async def test_servers_end_when_their_owner_is_killed(specs: list[ServerSpec], tmp_path: Path) -> None:
    (tmp_path / "owner.py").write_text(OWNER)
    ports = [str(port) for port in free_ports(3)]
    environment = {**os.environ, "JOURNAL": str(tmp_path / "journal"), "PYTHONPATH": str(tmp_path)}
    owner = subprocess.Popen(
        [sys.executable, str(tmp_path / "owner.py"), str(tmp_path), *ports],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert owner.stdout
    with owner.stdout:
        pids = [int(text) for text in (await asyncio.to_thread(owner.stdout.readline)).split()]
    assert len(pids) == 3
    owner.kill()
    owner.wait()
    await until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    assert {f"{name} orphaned" for name in NAMES} <= set(journal(tmp_path))


TALKATIVE = """
import sys
print("short", flush=True)
sys.stdout.write("x" * 70_000 + "\\n")
for number in range(20_000):
    print("line", number)
print("the end", flush=True)
sys.exit(3)
"""


async def test_a_line_longer_than_a_pipe_does_not_end_the_listening(tmp_path: Path) -> None:
    (tmp_path / "talkative_server.py").write_text(TALKATIVE)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    lines: list[str] = []
    spec = ServerSpec("detection", "talkative_server", "", ("127.0.0.1", 1), environment, None, 0)
    server = ServerProcess(spec, lambda _, line: lines.append(line))
    with Path(os.devnull).open() as nothing:
        await server.start(nothing.fileno())
    try:
        assert await asyncio.wait_for(server.wait(), 30) == 3
    finally:
        await server.stop()
    assert (lines[0], lines[-1], server.last_lines[-1]) == ("short", "the end", "the end")
    assert sum(line.count("x") for line in lines) == 70_000
    assert lines[-20_001:-1] == [f"line {number}" for number in range(20_000)]


async def test_a_server_may_take_as_long_to_start_as_it_allows_itself(
    specs: list[ServerSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    specs[1] = make_spec("recognition", tmp_path, GATE=str(gate))
    passed_s = 0.0
    monkeypatch.setattr(cluster_module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + passed_s))
    waits: list[str] = []

    def told(state: ServerState) -> None:
        if (state.name, state.state) == ("recognition", "starting"):
            waits.append(state.detail)

    cluster = Cluster(specs, on_state=told)
    starting = asyncio.create_task(cluster.start())
    try:
        await until(lambda: "recognition says hello" in waits)
        passed_s = 3600.0
        seen = len(waits)
        await until(lambda: starting.done() or len(waits) > seen + 2)
        gate.touch()
        await asyncio.wait_for(starting, 30)
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await cluster.stop()


# `run` with a plan of the test's own, and work that never ends. A process of its own: the signals are for it alone.
INTERRUPTED = textwrap.dedent(
    """
    import asyncio, pickle, sys
    from sluiceway.cli import run
    from sluiceway.cli.report import Report
    from sluiceway.cli.target import Target
    from sluiceway.client import Options
    from sluiceway_cluster.commands.embedded import PlannedCluster

    plan = PlannedCluster(pickle.load(sys.stdin.buffer))

    async def process(*_):
        print("processing", flush=True)
        await asyncio.Event().wait()

    run._process = process
    target = Target(None, plan, None, None, show_logs=False)
    report = Report(as_json=True, out=None, inputs=())
    sys.exit(asyncio.run(run._run(run.Job((), Options(), 1), target, report)))
    """
)


async def test_a_second_interrupt_ends_the_servers_of_a_run_at_once(specs: list[ServerSpec], tmp_path: Path) -> None:
    stubborn = make_spec("orchestrator", tmp_path, STUBBORN="1")
    specs[2] = replace(stubborn, grace_s=600)
    plan = ClusterPlan(tuple(specs), (stubborn.address,), (), None, auto_pull=False, encrypted=False, ca=None)
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-c", INTERRUPTED, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert run.stdin is not None
    assert run.stdout is not None
    try:
        run.stdin.write(pickle.dumps(plan))
        run.stdin.close()
        assert await asyncio.wait_for(run.stdout.readline(), 30) == b"processing\n"
        servers = {child.pid for child in psutil.Process(run.pid).children()}
        assert len(servers) == 3
        run.send_signal(signal.SIGINT)
        await until(lambda: "orchestrator term" in journal(tmp_path))
        run.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(run.wait(), 30) == 130
        assert not any(psutil.pid_exists(pid) for pid in servers)
    finally:
        if run.returncode is None:
            run.kill()
            await run.wait()
