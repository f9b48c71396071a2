"""How many servers of a kind `up` starts, and what each of them has of what one would have. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from sluiceway_runtime.errors import ConfigurationError

__all__ = ["read_scale", "replica_name", "service_of", "split_cores"]

# More servers of one kind than this on one machine is a typing error.
MAX_REPLICAS = 64


def read_scale(asked: Sequence[str], services: Sequence[str]) -> dict[str, int]:
    """Read what was asked for.

    Args:
        asked: `NAME=NUMBER` each.
        services: what there is: stages and the orchestrator.

    Returns:
        Number of servers by name, of every service; one of those that nothing was said of.

    Raises:
        ConfigurationError: every fault, one a line.
    """
    found = dict.fromkeys(services, 1)
    faults = []
    for item in asked:
        name, _, number = item.partition("=")
        if name not in found:
            faults.append(f"--scale {item}: there is no {name}; there are {', '.join(services)}")
        elif not number.isdecimal() or not 1 <= int(number) <= MAX_REPLICAS:
            faults.append(f"--scale {item}: wants NAME=NUMBER, a number from 1 to {MAX_REPLICAS}")
        else:
            found[name] = int(number)
    if faults:
        raise ConfigurationError("\n".join(faults))
    return found


def replica_name(service: str, number: int) -> str:
    """Name a server: the first is called as its service. Names of stages have no hyphen."""
    return service if number == 0 else f"{service}-{number + 1}"


def service_of(name: str) -> str:
    """The service that a server is a replica of."""
    return name.partition("-")[0]


def split_cores(service: str, cores: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Give each replica of a service its own part of the service's cores, neighbours together.

    Raises:
        ConfigurationError: there are fewer cores than replicas.
    """
    if len(cores) < count:
        raise ConfigurationError(f"--scale {service}={count}: {service} has {len(cores)} cores, at least one for each")
    edges = [len(cores) * number // count for number in range(count + 1)]
    return [tuple(cores[start:end]) for start, end in pairwise(edges)]
