"""How many servers of a kind `up` starts, and what each of them has of what one would have. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from sluiceway_runtime.errors import ConfigurationError

__all__ = [
    "AUTOMATIC_RULE", "FRONTS_RULE", "automatic_fronts", "automatic_orchestrators", "read_scale", "replica_name",
    "service_of", "split_cores", "split_devices",
]  # fmt: skip

# More servers of one kind than this on one machine is a typing error.
MAX_REPLICAS = 64
# An orchestrator takes 2.5 to 5 ms of a core for an image: the more of a machine, the less its stages compute on the
# cores. On 16 cores and an H200 that computes both stages, two orchestrators and one server of each stage passed 663
# photographs a second and were full; four, and two of each stage, passed 994. With detection on those cores one passed
# 185 images a second, where another framework with as many of the same detectors passed 339.
CORES_PER_ORCHESTRATOR = {"all": 4, "some": 8, "none": 16}
MAX_PER_DEVICE = 4
AUTOMATIC_RULE = (
    f"one for every {CORES_PER_ORCHESTRATOR['all']} cores where all stages compute on GPUs, for every "
    f"{CORES_PER_ORCHESTRATOR['some']} where some do, else for every {CORES_PER_ORCHESTRATOR['none']}"
)
# A front is one Python process; it wants a core for its loop and one for gRPC's threads. An H200 computes more than one
# carries, but a second one wants cores for its workers, too.
CORES_PER_FRONT = 2
CORES_PER_SECOND_FRONT = 4
FRONTS_RULE = (
    f"one for each GPU, as far as there are {CORES_PER_FRONT} cores for each, and two where there are "
    f"{CORES_PER_SECOND_FRONT}"
)


def automatic_orchestrators(cores: float, devices: Sequence[int]) -> int:
    """How many orchestrators there are if nobody says.

    Args:
        cores: that may be used.
        devices: GPUs of each stage; 0 for one that computes on the cores.
    """
    on_gpus = "all" if devices and all(devices) else "some" if any(devices) else "none"
    most = MAX_PER_DEVICE * min(devices) if on_gpus == "all" else MAX_REPLICAS
    return max(1, min(int(cores / CORES_PER_ORCHESTRATOR[on_gpus]), most))


def automatic_fronts(cores: float, devices: int) -> int:
    """How many servers of a stage there are if nobody says: one or two for each of its GPUs, by the cores.

    Args:
        cores: that the stage may use.
        devices: GPUs of the stage; 0 where it computes on the cores.
    """
    if devices and cores >= 2 * devices * CORES_PER_SECOND_FRONT:
        return min(2 * devices, MAX_REPLICAS)
    return max(1, min(devices, int(cores / CORES_PER_FRONT), MAX_REPLICAS))


def split_devices(devices: Sequence[str], count: int) -> list[str]:
    """Give each replica of a stage a GPU, in turn. Fewer replicas than GPUs have all of them each: none stays unused.

    Returns:
        What each replica is told as its `device`; empty for what is configured.
    """
    if len(devices) < 2 or count < len(devices):
        return [""] * count
    return [devices[number % len(devices)] for number in range(count)]


def read_scale(asked: Sequence[str], otherwise: Mapping[str, int]) -> dict[str, int]:
    """Read what was asked for.

    Args:
        asked: `NAME=NUMBER` each.
        otherwise: number of servers of every service that nothing is said of.

    Returns:
        Number of servers of every service.

    Raises:
        ConfigurationError: every fault, one a line.
    """
    found = dict(otherwise)
    faults = []
    for item in asked:
        name, _, number = item.partition("=")
        if name not in found:
            faults.append(f"--scale {item}: there is no {name}; there are {', '.join(otherwise)}")
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
