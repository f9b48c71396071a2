"""What is started in the place of what runs: the servers of a plan made anew, on ports of their own."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from sluiceway_runtime.errors import ConfigurationError

from sluiceway_cluster.placement import ORCHESTRATOR, variable
from sluiceway_cluster.process import ServerSpec
from sluiceway_cluster.scaling import service_of

__all__ = ["find_successors", "replaceable"]

SHARED_PORTS = "SLUICEWAY_SHARED_PORTS"


def replaceable(specs: Iterable[ServerSpec]) -> tuple[ServerSpec, ...]:
    """Let the servers of stages share their ports with those that will replace them."""
    return tuple(spec if service_of(spec.name) == ORCHESTRATOR else _sharing(spec, spec) for spec in specs)


def find_successors(
    first: Sequence[ServerSpec], running: Mapping[str, ServerSpec], planned: Sequence[ServerSpec], stages: Sequence[str]
) -> list[ServerSpec]:
    """Choose what to start.

    Args:
        first: the servers that the cluster began with; theirs are the ports that people and scrapers know.
        running: those that serve now, by name.
        planned: what the configuration now says, for the same ports.
        stages: to be replaced; none are all.

    Returns:
        A successor for each server of these stages, on ports of its own besides.

    Raises:
        ConfigurationError: what has changed cannot be taken up so; every fault, one a line.
    """
    known = [spec for spec in first if service_of(spec.name) != ORCHESTRATOR]
    services = list(dict.fromkeys(service_of(spec.name) for spec in known))
    if strange := [name for name in stages if name not in services]:
        others = "an orchestrator is restarted with `up`" if ORCHESTRATOR in strange else "not of this cluster"
        raise ConfigurationError(f"{', '.join(strange)}: {others}; its stages are {', '.join(services)}")
    wanted = set(stages or services)
    before = {spec.name: _place(spec) for spec in known if service_of(spec.name) in wanted}
    after = {spec.name: spec for spec in planned if service_of(spec.name) in wanted}
    if not stages:
        after |= {spec.name: spec for spec in planned if service_of(spec.name) != ORCHESTRATOR}
    differ = [name for name in {**before, **after} if name not in after or before.get(name) != _place(after[name])]
    if differ:
        raise ConfigurationError(
            f"{', '.join(differ)}: which servers there are, and at which addresses, cannot change without a restart of "
            "`up`"
        )
    partly = wanted != set(services)
    with ExitStack() as held:
        return [
            _successor(spec, next(old for old in known if old.name == name), running[name], held, partly=partly)
            for name, spec in after.items()
        ]


def _place(spec: ServerSpec) -> tuple[object, ...]:
    return spec.module, spec.arguments, spec.address, spec.operations, spec.http


def _successor(spec: ServerSpec, first: ServerSpec, old: ServerSpec, held: ExitStack, *, partly: bool) -> ServerSpec:
    host = first.operations[0]
    # Both stay bound until all are found, so that no two are the same.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    port, operations_port = (
        held.enter_context(socket.create_server((host, 0), family=family)).getsockname()[1] for _ in range(2)
    )
    environment = {
        **spec.environment,
        variable(spec.section, "port"): str(port),
        variable(spec.section, "operations_port"): str(operations_port),
    }
    for key in (variable(spec.section, "cores"), variable(spec.section, "cpus")):
        if partly and key in environment and key in old.environment:
            # The machine was divided between all stages, of which others go on with what they have.
            environment[key] = old.environment[key]
    address = f"{first.address.rpartition(':')[0]}:{port}"
    return _sharing(replace(spec, environment=environment, address=address, operations=(host, operations_port)), first)


def _sharing(spec: ServerSpec, first: ServerSpec) -> ServerSpec:
    shared = f"{first.address.rpartition(':')[2]},{first.operations[1]}"
    return replace(spec, environment={**spec.environment, SHARED_PORTS: shared})
