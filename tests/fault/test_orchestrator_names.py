"""Replicas behind a name: they come, leave, or are not there yet."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeServer, picture
from waiting import until

from sluiceway.pipeline.v1 import pipeline_pb2

Source = pipeline_pb2.Source


class Name:
    """A DNS name with as many addresses as replicas; all of them listen on one port."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    async def __call__(self, name: str, port: int) -> Sequence[str]:
        assert name == "detection.test"
        if not self.addresses:
            raise OSError("no such name")
        return tuple(self.addresses)


async def test_three_replicas_behind_a_name_that_had_one_share_the_work_within_five_seconds() -> None:
    async def work(_number: int) -> None:
        await asyncio.sleep(0.01)

    name = Name()
    servers = [FakeServer(FakeDetection(capacity=4, before=work)) for _ in range(3)]
    first = await servers[0].start("127.0.0.1:0")
    port = first.rpartition(":")[2]
    name.addresses = ["127.0.0.1"]
    target = f"dns:///detection.test:{port}"
    async with Cluster([], service={"stage_lookup": name}, detection=target) as cluster:
        running = True
        number = 0

        async def client() -> None:
            nonlocal number
            while running:
                number += 1
                (source,) = (await cluster.process(Source(image=picture(number)))).values()
                assert source.done is not None

        clients = [asyncio.create_task(client()) for _ in range(12)]
        await until(lambda: servers[0].stage.seen.total() > 20)
        for index, server in enumerate(servers[1:], start=2):
            await server.start(f"127.0.0.{index}:{port}")
            name.addresses.append(f"127.0.0.{index}")
        await until(lambda: all(server.stage.seen for server in servers))
        for server in servers:
            server.stage.seen.clear()
        await until(lambda: sum(server.stage.seen.total() for server in servers) > 300)
        shares = [server.stage.seen.total() for server in servers]
        # One of them leaves the name: it finishes what it has and gets nothing more.
        name.addresses.pop()
        await until(lambda: len(cluster.service.stages["detection"].replicas) == 2)
        await until(lambda: servers[2].stage.running == 0)
        servers[2].stage.seen.clear()
        await until(lambda: servers[0].stage.seen.total() > shares[0] + 50)
        assert not servers[2].stage.seen
        running = False
        await asyncio.gather(*clients)
    for server in servers:
        await server.stop()
    assert max(shares) <= 1.5 * min(shares), shares


async def test_a_stage_scaled_to_zero_is_waited_for_and_asks_to_be_woken() -> None:
    name = Name()
    late = FakeServer(FakeDetection())
    port = (await late.start()).rpartition(":")[2]
    async with Cluster([], service={"stage_lookup": name}, detection=f"detection.test:{port}") as cluster:
        name.addresses = ["127.0.0.1"]
        await cluster.process(Source(image=picture(1)))
        await late.serving(yes=False)
        await until(lambda: not any(replica.ready for replica in cluster.service.stages["detection"].replicas))
        job = asyncio.create_task(cluster.process(*(Source(image=picture(n)) for n in range(5))))
        await until(lambda: cluster.service.stages["detection"].backlog_items == 5)
        gauge = cluster.server.registry.get_sample_value("sluiceway_stage_backlog_items", {"stage": "detection"})
        assert gauge == 5
        await late.serving(yes=True)
        events = await job
        assert all(source.done is not None for source in events.values())
        gauge = cluster.server.registry.get_sample_value("sluiceway_stage_backlog_items", {"stage": "detection"})
        assert gauge == 0
    await late.stop()
