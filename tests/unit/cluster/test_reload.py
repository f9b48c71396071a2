"""New servers in the place of old ones: when they are made known, when the old ones end, and what undoes it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from ports import free_ports
from sluiceway_cluster import Cluster, ClusterError, ClusterPlan, ServerSpec
from sluiceway_cluster import cluster as cluster_module
from sluiceway_cluster.reload import AddressFiles, NobodyThere, Reloading, ask, controlled, reloading, replaceable
from sluiceway_cluster.reload.successors import find_successors
from sluiceway_runtime.errors import ConfigurationError, StartupError
from waiting import until

# A stage is ready at once, or ends when it is told to. The orchestrator believes its file, unless it is blind, and has
# something left to do with whoever a second file names.
SERVER = textwrap.dedent(
    """
    import asyncio, json, os, pathlib, signal, sys

    def lines(file):
        return pathlib.Path(file).read_text().split()

    def stages():
        file = os.environ["SLUICEWAY_ORCHESTRATOR__DETECTION"].removeprefix("file:")
        seen = [] if os.environ.get("BLIND") else lines(file)
        replicas = [{"address": address, "ready": True} for address in seen]
        return {"stages": {"detection": {"replicas": replicas, "leaving": lines(os.environ["BUSY_WITH"])}}}

    async def answer(reader, writer):
        asked = await reader.readline()
        body = json.dumps(stages()) if b"statusz" in asked else "ready"
        writer.write(f"HTTP/1.0 200 OK\\r\\n\\r\\n{body}".encode())
        await writer.drain()
        writer.close()

    async def main():
        if os.environ.get("FAIL"):
            sys.exit("these are no weights")
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_reader(int(os.environ["SLUICEWAY_PARENT_PIPE"]), stop.set)
        port = os.environ.get("SLUICEWAY_DETECTION__OPERATIONS_PORT") or os.environ["PORT"]
        await asyncio.start_server(answer, "127.0.0.1", int(port))
        await stop.wait()

    asyncio.run(main())
    """
)


def spec_of(name: str, folder: Path, **variables: str) -> ServerSpec:
    port, operations = free_ports(2)
    environment = {**os.environ, "PORT": str(operations), "PYTHONPATH": str(folder), **variables}
    address = f"127.0.0.1:{port}"
    return ServerSpec(
        name, "scripted_server", address, ("127.0.0.1", operations), environment, None, 5, section="detection"
    )


class Installation:
    """A plan, which `plan_anew` repeats with whatever variables are set for detection."""

    def __init__(self, folder: Path, **orchestrator: str) -> None:
        (folder / "scripted_server.py").write_text(SERVER)
        self.busy_with = folder / "busy"
        self.busy_with.touch()
        self.changes: dict[str, str] = {}
        stage = spec_of("detection", folder)
        told = {"detection": ("SLUICEWAY_ORCHESTRATOR__DETECTION", stage.address)}
        servers = (stage, spec_of("orchestrator", folder, BUSY_WITH=str(self.busy_with), **orchestrator))
        self.plan = ClusterPlan(
            servers, (servers[1].address,), (), None, auto_pull=False, encrypted=False, ca=None, told=told
        )

    def plan_anew(self) -> ClusterPlan:
        stage, orchestrator = self.plan.servers
        return replace(
            self.plan,
            servers=(replace(stage, environment={**stage.environment, **self.changes}), orchestrator),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[Cluster, Reloading, Callable[[], list[str]]]]:
        """The cluster as `up` runs it, and what its file says."""
        with AddressFiles(self.plan.told) as files:
            plan = replace(self.plan, servers=files.looked_into(replaceable(self.plan.servers)))
            file = Path(plan.servers[1].environment["SLUICEWAY_ORCHESTRATOR__DETECTION"].removeprefix("file:"))
            async with Cluster(plan.servers) as cluster:
                watching = asyncio.create_task(cluster.watch())
                try:
                    yield cluster, Reloading(cluster, plan, files, self.plan_anew), lambda: file.read_text().split()
                finally:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
        assert not file.parent.exists()


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    assert [child for child in psutil.Process().children(recursive=True) if child.pid not in before] == []


async def test_the_new_server_takes_the_place_of_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "FIRST_RESTART_DELAY_S", 0.01)
    installation = Installation(tmp_path)
    async with installation.running() as (cluster, reloading, addresses):
        old, [address] = cluster.pids["detection"], addresses()
        assert old
        assert address == installation.plan.servers[0].address
        installation.busy_with.write_text(address)
        told: list[str] = []
        task = asyncio.create_task(reloading.reload((), told.append))
        await until(lambda: len(told) == 2)
        # It serves under its name, the orchestrator knows nobody else, and is not done with the old one yet.
        assert cluster.pids["detection"] != old
        [fresh] = addresses()
        assert fresh == cluster.servers["detection"].spec.address != address
        with pytest.raises(ClusterError, match="another reload is under way"):
            await reloading.reload((), told.append)
        # One that dies is started again as it is now, while the old one is still there and after it.
        for _ in range(2):
            new = cluster.pids["detection"]
            assert new
            os.kill(new, signal.SIGKILL)
            await until(lambda new=new: cluster.pids["detection"] not in (new, None))  # type: ignore[misc]
            assert (cluster.servers["detection"].spec.address, addresses()) == (fresh, [fresh])
            if not task.done():
                assert psutil.pid_exists(old)
                installation.busy_with.write_text("")
                await task
                assert not psutil.pid_exists(old)


def children() -> set[psutil.Process]:
    """Processes of this one; other tests may have left some that wait for work."""
    return set(psutil.Process().children())


async def test_new_servers_that_die_or_are_not_seen_leave_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "KNOWN_WITHIN_S", 0.3)
    for changes, variables, words in (
        ({"FAIL": "1"}, {}, "the detection server could not start .*these are no weights"),
        ({}, {"BLIND": "1"}, "the orchestrator did not see the new servers"),
    ):
        installation = Installation(tmp_path, **variables)
        installation.changes = changes
        others = children()
        async with installation.running() as (cluster, reload, addresses):
            before, pids = addresses(), dict(cluster.pids)
            with pytest.raises(ClusterError, match=f"(?s){words}"):
                await reload.reload((), lambda _: None)
            assert (addresses(), cluster.pids) == (before, pids)
            assert len(children() - others) == 2


async def test_a_cluster_that_stops_in_the_middle_of_it_leaves_nobody(tmp_path: Path) -> None:
    installation = Installation(tmp_path, BLIND="1")
    told: list[str] = []
    others = children()
    async with installation.running() as (cluster, reload, addresses):
        task = asyncio.create_task(reload.reload((), told.append))
        await until(lambda: len(addresses()) == 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(children() - others) == 3
        assert cluster.pids["detection"]


def planned(name: str, port: int, **variables: str) -> ServerSpec:
    section = "stages.plates" if name == "plates" else name
    return ServerSpec(
        name, f"sluiceway_{name}", f"127.0.0.1:{port}", ("127.0.0.1", port + 1), variables, None, 5, section=section
    )


FIRST = [planned("detection", 50), planned("plates", 60), planned("orchestrator", 70)]


@pytest.mark.parametrize(
    ("now", "stages", "words"),
    [
        (FIRST, ["words"], "words: not of this cluster; its stages are detection, plates"),
        (FIRST, ["orchestrator"], "an orchestrator is restarted with `up`"),
        ([planned("detection", 51), *FIRST[1:]], [], "detection: which servers there are"),
        ([*FIRST, planned("detection-2", 80)], ["detection"], "detection-2: which servers there are"),
        ([*FIRST, planned("words", 80)], [], "words: which servers there are"),
        (FIRST[1:], [], "detection: which servers there are"),
    ],
)
def test_what_only_a_restart_can_take_up(now: list[ServerSpec], stages: list[str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        find_successors(FIRST, {spec.name: spec for spec in FIRST}, now, stages)


@pytest.mark.parametrize(("stages", "cores"), [(["plates"], "0"), ([], "1")])
def test_a_stage_that_is_replaced_alone_keeps_its_cores(stages: list[str], cores: str) -> None:
    running = {spec.name: replace(spec, environment={f"SLUICEWAY_{spec.name}": "old"}) for spec in FIRST}
    running["plates"] = planned("plates", 600, SLUICEWAY_STAGES__PLATES__CORES="0")
    now = [FIRST[0], planned("plates", 60, SLUICEWAY_STAGES__PLATES__CORES="1", MODEL="new"), FIRST[2]]
    found = {spec.name: spec for spec in find_successors(FIRST, running, now, stages)}
    assert found.keys() == ({"plates"} if stages else {"detection", "plates"})
    environment = found["plates"].environment
    assert (environment["SLUICEWAY_STAGES__PLATES__CORES"], environment["MODEL"]) == (cores, "new")
    # Beside those that are known it has ports of its own.
    assert environment["SLUICEWAY_SHARED_PORTS"] == "60,61"
    own = environment["SLUICEWAY_STAGES__PLATES__PORT"], environment["SLUICEWAY_STAGES__PLATES__OPERATIONS_PORT"]
    assert len({*own, "60", "61"}) == 4
    assert found["plates"].address == f"127.0.0.1:{own[0]}"
    assert found["plates"].operations == ("127.0.0.1", int(own[1]))


async def asked(port: str, *stages: str) -> list[str]:
    return await asyncio.to_thread(lambda: list(ask(port, stages)))


async def test_who_asks_hears_how_it_goes_and_how_it_ends() -> None:
    port, ends = f"test-{os.getpid()}", list[BaseException | None]()

    async def reload(stages: object, tell: Callable[[str], None]) -> None:
        tell(f"starting {stages}")
        if (end := ends.pop()) is not None:
            raise end

    with pytest.raises(NobodyThere):
        await asked(port)
    async with controlled(port, reload):
        ends.append(None)
        assert await asked(port, "a", "b") == ["starting ['a', 'b']"]
        for end, kind, words in (
            (ConfigurationError("no such key"), ConfigurationError, "no such key"),
            (StartupError("no weights"), ClusterError, "no weights"),
            (ClusterError("it died"), ClusterError, "it died"),
            (ValueError("secret"), ClusterError, "a fault of the program; its log says more"),
        ):
            ends.append(end)
            with pytest.raises(kind, match=words) as caught:
                await asked(port)
            assert type(caught.value) is kind
        # A second cluster of the same port: the first one keeps the name.
        async with controlled(port, reload):
            ends.append(None)
            assert len(await asked(port)) == 1
    with pytest.raises(NobodyThere):
        await asked(port)


@pytest.mark.parametrize("said", [b"nonsense\n", b"{}\n", b"[]\n", b'{"reload": 1}\n'])
async def test_what_is_no_question_is_answered_in_words(said: bytes) -> None:
    port = f"test-{os.getpid()}"

    async def reload(_stages: object, _tell: object) -> None:
        raise AssertionError

    async with controlled(port, reload):
        reader, writer = await asyncio.open_unix_connection(f"\0sluiceway/up/{port}")
        writer.write(said)
        answer: Mapping[str, str] = json.loads(await reader.readline())
        assert answer == {"fault": "this is not understood"}
        writer.close()


async def test_a_cluster_that_ends_meanwhile_is_told_from_one_that_is_done() -> None:
    port, begun = f"test-{os.getpid()}", asyncio.Event()

    async def reload(_stages: object, _tell: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with controlled(port, reload):
        asking = asyncio.create_task(asked(port))
        await begun.wait()
    with pytest.raises(ClusterError, match="ended meanwhile"):
        await asking


@pytest.mark.skipif(os.getuid() != 0, reason="another user can be had by root alone")
async def test_another_user_is_refused() -> None:
    port = f"test-{os.getpid()}"

    async def reload(_stages: object, _tell: object) -> None:
        raise AssertionError

    program = "import os, sys; from sluiceway_cluster.reload import ask; os.setuid(65534); list(ask(sys.argv[1], ()))"
    async with controlled(port, reload):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, port, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert b"belongs to another user" in errors
