"""From old servers to new ones: started beside them, made known, and the old ones ended when nobody needs them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sluiceway_cluster.cluster import Cluster, ClusterError, last_words
from sluiceway_cluster.placement import ORCHESTRATOR
from sluiceway_cluster.plan import ClusterPlan
from sluiceway_cluster.process import ServerProcess
from sluiceway_cluster.reload.addresses import AddressFiles
from sluiceway_cluster.reload.successors import find_successors
from sluiceway_cluster.scaling import service_of

__all__ = ["Reloading", "Tell"]

# Orchestrators look for addresses every `resolve_interval_s`, and then connect.
KNOWN_WITHIN_S = 90.0
# Beyond the longest deadline of a source, which is then over in any case.
LET_GO_MARGIN_S = 10.0
POLL_S = 0.1

# What becomes of a reload, a line each.
Tell = Callable[[str], None]


class Reloading:
    """Replaces the servers of stages, one time after the other.

    Args:
        cluster: that runs, in a `watch`.
        plan: that it was started by.
        files: where its orchestrators look for stages.
        plan_anew: reads the configuration as it is now, and brings in weights; called in a thread.
    """

    def __init__(
        self, cluster: Cluster, plan: ClusterPlan, files: AddressFiles, plan_anew: Callable[[], ClusterPlan]
    ) -> None:
        self._cluster = cluster
        self._plan = plan
        self._files = files
        self._plan_anew = plan_anew
        self._turn = asyncio.Lock()

    async def reload(self, stages: Sequence[str], tell: Tell) -> None:
        """Replace the servers of some stages, or of all; returns when the old ones are gone.

        Whatever goes wrong before the new ones serve leaves the old ones as they are.

        Args:
            stages: names; none are all.
            tell: hears how far it is.

        Raises:
            ConfigurationError: what the configuration now says cannot be, or not without a restart.
            StartupError: its weights cannot be had.
            ClusterError: a new server could not start, or orchestrators do not see it.
        """
        if self._turn.locked():
            raise ClusterError("another reload is under way")
        async with self._turn:
            plan = await asyncio.to_thread(self._plan_anew)
            running = {name: server.spec for name, server in self._cluster.servers.items()}
            specs = find_successors(self._plan.servers, running, plan.servers, stages)
            names = ", ".join(spec.name for spec in specs)
            tell(f"starting {names} beside those that serve")
            fresh = await self._cluster.start_beside(specs)
            await self._make_known(fresh, tell)
            former = self._cluster.take_over(fresh)
            tell(f"{names}: the new servers answer; the old ones finish what they have begun")
            await self._until_let_go(former)
            await self._cluster.stop_beside(former)

    async def _make_known(self, fresh: Sequence[ServerProcess], tell: Tell) -> None:
        """Tell the orchestrators of the new servers, and then of nothing else.

        Raises:
            ClusterError: one died, or an orchestrator does not come to see it as ready. All is as it was.
        """
        old = _by_stage(self._cluster.servers[server.spec.name] for server in fresh)
        new = _by_stage(fresh)
        try:
            self._write({stage: [*old[stage], *servers] for stage, servers in new.items()})
            async with asyncio.timeout(KNOWN_WITHIN_S):
                while not await self._are_known(fresh):
                    _require_running(fresh)
                    await asyncio.sleep(POLL_S)
        except (ClusterError, TimeoutError) as error:
            tell("going back to the old servers")
            self._write(old)
            await self._until_let_go(fresh)
            await self._cluster.stop_beside(fresh)
            if isinstance(error, ClusterError):
                raise
            raise ClusterError(f"the orchestrator did not see the new servers within {KNOWN_WITHIN_S:g} s") from None
        self._write(new)

    async def _are_known(self, servers: Iterable[ServerProcess]) -> bool:
        """Whether every orchestrator takes these for ready."""
        seen = await self._seen()
        return all(
            stages is not None and all(_is_ready(stages, server) for server in self._told(servers)) for stages in seen
        )

    async def _until_let_go(self, servers: Sequence[ServerProcess]) -> None:
        """Wait until no orchestrator has anything more to do with these, at most for as long as a source may take."""
        end_s = time.monotonic() + self._plan.max_deadline_s + LET_GO_MARGIN_S
        while time.monotonic() < end_s:
            seen = await self._seen()
            # One that is just being started knows what the files say.
            if not any(_has(stages, server) for stages in seen if stages for server in self._told(servers)):
                return
            await asyncio.sleep(POLL_S)

    async def _seen(self) -> list[Mapping[str, Any] | None]:
        """What each orchestrator says of its stages."""
        orchestrators = [server for name, server in self._cluster.servers.items() if service_of(name) == ORCHESTRATOR]
        answers = await asyncio.gather(*(server.status() for server in orchestrators))
        return [answer["stages"] if answer is not None else None for answer in answers]

    def _told(self, servers: Iterable[ServerProcess]) -> Iterable[ServerProcess]:
        return (server for server in servers if service_of(server.spec.name) in self._files.stages)

    def _write(self, servers: Mapping[str, Sequence[ServerProcess]]) -> None:
        for stage, members in servers.items():
            if stage in self._files.stages:
                self._files.write(stage, [server.spec.address for server in members])


def _require_running(fresh: Iterable[ServerProcess]) -> None:
    for server in fresh:
        if server.exit_code is not None:
            raise ClusterError(last_words(server, f"the new {server.spec.name} server died"))


def _by_stage(servers: Iterable[ServerProcess]) -> dict[str, list[ServerProcess]]:
    found: dict[str, list[ServerProcess]] = {}
    for server in servers:
        found.setdefault(service_of(server.spec.name), []).append(server)
    return found


def _is_ready(stages: Mapping[str, Any], server: ServerProcess) -> bool:
    replicas = stages[service_of(server.spec.name)]["replicas"]
    return any(replica["ready"] and _port(replica["address"]) == _port(server.spec.address) for replica in replicas)


def _has(stages: Mapping[str, Any], server: ServerProcess) -> bool:
    stage = stages[service_of(server.spec.name)]
    addresses = [*(replica["address"] for replica in stage["replicas"]), *stage["leaving"]]
    return any(_port(address) == _port(server.spec.address) for address in addresses)


def _port(address: str) -> str:
    """Names are resolved by the orchestrator; of one machine the port says it all."""
    return address.rpartition(":")[2]
