"""Where each server of the embedded cluster listens, and where the orchestrator finds the stages."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_runtime.config import ServerConfig, section_values

from sluiceway_cluster.scaling import replica_name
from sluiceway_cluster.stages import MODULES, ConfiguredStage

__all__ = ["ORCHESTRATOR", "PlacedServer", "Written", "place_servers", "stage_targets", "variable"]

ORCHESTRATOR = "orchestrator"
# Ports of stages that have no default ones of their own: the first is after those of the default stages.
FIRST_PORT, FIRST_OPERATIONS_PORT, FIRST_HTTP_PORT = 50054, 9054, 8054


@dataclass(frozen=True, slots=True)
class PlacedServer:
    """One server with its ports.

    Attributes:
        name: of the stage, or orchestrator; of further replicas with a number.
        service: what it is a replica of.
        section: of its configuration.
        config: that section.
        module: its program.
        arguments: what the program is told besides the configuration.
        host: where it is reached from this machine.
        port: of gRPC.
        operations_port: of its probes.
        http_port: of public HTTP; 0 where it has none.
    """

    name: str
    service: str
    section: str
    config: ServerConfig
    module: str
    arguments: tuple[str, ...]
    host: str
    port: int
    operations_port: int
    http_port: int = 0

    @property
    def target(self) -> str:
        """Its gRPC address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def variable(section: str, key: str) -> str:
    """Name the variable of a key; the section of a stage is `stages.NAME`."""
    return f"SLUICEWAY_{section.replace('.', '__')}__{key}".upper()


class Written:
    """Which keys somebody has set."""

    def __init__(self, tables: Mapping[str, Any], variables: Mapping[str, str]) -> None:
        self._tables = tables
        self._variables = variables

    def has(self, section: str, key: str) -> bool:
        """Whether the file or a variable says it; a key of an inner table has dots."""
        outer, _, name = section.partition(".")
        values: object = section_values(outer, tables=self._tables, environment=self._variables)
        for part in (*filter(None, [name]), *key.split(".")):
            if not isinstance(values, Mapping) or part not in values:
                return False
            values = values[part]
        return True

    def is_variable(self, section: str, key: str) -> bool:
        """Whether a variable says it."""
        return variable(section, key) in self._variables


def place_servers(
    stages: Sequence[ConfiguredStage],
    orchestrator: OrchestratorConfig,
    written: Written,
    *,
    free_ports: bool,
    replicas: Mapping[str, int] | None = None,
) -> list[PlacedServer]:
    """Give every server its ports: the stages', then the orchestrators'.

    Args:
        replicas: of each service; one where nothing is said.
    """
    counts = replicas or {}
    ports = _Ports(free=free_ports)
    # Default ports of a kind are those of its default stage.
    taken: set[int] = {orchestrator.port, orchestrator.operations_port, orchestrator.http.port}
    for stage in stages:
        for key in ("port", "operations_port"):
            if stage.is_default or written.has(stage.entry.section, key):
                taken.add(getattr(stage.config, key))
        if stage.config.http.enabled and (stage.is_default or written.has(stage.entry.section, "http.port")):
            taken.add(stage.config.http.port)

    def next_after(first: int) -> int:
        number = next(number for number in range(first, 2**16) if number not in taken)
        taken.add(number)
        return ports.take(number)

    def place(stage: ConfiguredStage, number: int, key: str, first: int) -> int:
        if number == 0 and (stage.is_default or written.has(stage.entry.section, key)):
            return ports.take(getattr(stage.config, key))
        return next_after(first)

    def place_http(stage: ConfiguredStage, number: int) -> int:
        if not stage.config.http.enabled:
            return 0
        if number == 0 and (stage.is_default or written.has(stage.entry.section, "http.port")):
            return stage.config.http.port
        return next_after(FIRST_HTTP_PORT)

    servers = [
        PlacedServer(
            replica_name(stage.name, number),
            stage.name,
            stage.entry.section,
            stage.config,
            MODULES[stage.entry.kind],
            stage.arguments,
            _reachable(stage.config.host),
            place(stage, number, "port", FIRST_PORT),
            place(stage, number, "operations_port", FIRST_OPERATIONS_PORT),
            place_http(stage, number),
        )
        for stage in stages
        for number in range(counts.get(stage.name, 1))
    ]
    for number in range(counts.get(ORCHESTRATOR, 1)):
        own = (
            (ports.take(orchestrator.port), ports.take(orchestrator.operations_port), orchestrator.http.port)
            if number == 0
            else (next_after(FIRST_PORT), next_after(FIRST_OPERATIONS_PORT), next_after(orchestrator.http.port))
        )
        module, host = "sluiceway_orchestrator", _reachable(orchestrator.host)
        name = replica_name(ORCHESTRATOR, number)
        servers.append(PlacedServer(name, ORCHESTRATOR, ORCHESTRATOR, orchestrator, module, (), host, *own))
    return servers


def stage_targets(
    stages: Sequence[ConfiguredStage], targets: Mapping[str, str], written: Written
) -> dict[str, tuple[str, str]]:
    """Tell the orchestrators where the stages are, all replicas of each, unless the operator says it is elsewhere.

    For a named stage only a variable says so: its `target` in the file is where it is when nobody starts it here.

    Returns:
        By stage, the variable that says so and its value.
    """
    found = {}
    for stage in stages:
        if stage.is_default:
            if not written.has(ORCHESTRATOR, stage.name):
                found[stage.name] = variable(ORCHESTRATOR, stage.name), targets[stage.name]
        elif not written.is_variable(stage.entry.section, "target"):
            found[stage.name] = variable(stage.entry.section, "target"), targets[stage.name]
    return found


def _reachable(host: str) -> str:
    """Where a server that listens on every address is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not listened on


class _Ports:
    """Hands out ports: as configured, or free ones.

    Free ports stay reserved by a bound socket until all are found, so that no two servers get the same.
    """

    def __init__(self, *, free: bool) -> None:
        self._free = free
        self._held: list[socket.socket] = []

    def take(self, configured: int) -> int:
        if not self._free and configured != 0:
            return configured
        held = socket.socket()
        held.bind(("127.0.0.1", 0))
        self._held.append(held)
        return int(held.getsockname()[1])

    def __del__(self) -> None:
        for held in self._held:
            held.close()
