"""Who gets which cores: decided once for the whole machine, so that no two stages fight over one. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Division", "StageLoad", "divide", "format_cores"]

# Words in a typical photograph or scan; a recogniser's cost for one image is this many times its cost for one word.
WORDS_PER_IMAGE = 17
# Below this for each stage, giving stages cores of their own would leave them idle while another is the narrow place:
# with two cores for two stages, detection alone would be limited to one. Workers of all stages are pinned to every core
# instead, one thread each; that costs 8% against a perfect split where a wrong split costs up to half.
MIN_CORES_PER_STAGE_TO_SPLIT = 2
# A stage on a GPU still has a front process and feeds the device: for an image with 17 to 47 words some 5 ms of a core,
# where detecting them takes 25 to 50. So it has a core, and of every further eight one.
CORES_A_CORE_FOR_GPUS = 8


@dataclass(frozen=True, slots=True)
class StageLoad:
    """What one image costs in a stage.

    Attributes:
        cost_ms: of one core.
        on_gpu: whether it computes elsewhere.
    """

    cost_ms: float
    on_gpu: bool = False


@dataclass(frozen=True, slots=True)
class Division:
    """Cores of each stage by its name; `shared` when all have the same."""

    cores: Mapping[str, tuple[int, ...]]
    shared: bool


def divide(cores: Sequence[int], loads: Mapping[str, StageLoad]) -> Division:
    """Divide cores in proportion to what an image costs in each stage.

    Args:
        cores: that this process may use, neighbours in order.
        loads: of each stage by its name, in the order of their cores.

    Returns:
        Disjoint cores, at least one each; or all for every stage where there are too few to split.
    """
    own = tuple(cores)
    first, *others = loads.values()
    if not others:
        return Division(dict.fromkeys(loads, own), shared=False)
    enough = MIN_CORES_PER_STAGE_TO_SPLIT * len(loads)
    if all(load.on_gpu for load in others):
        # They want few cores and want those at once; the first stage has the rest to itself.
        enough = len(loads)
    if len(own) < enough:
        return Division(dict.fromkeys(loads, own), shared=True)
    if first.on_gpu and all(load.on_gpu for load in others):
        counts = [len(own) // len(loads) + (number < len(own) % len(loads)) for number in range(len(loads))]
    else:
        counts = _by_cost(len(own), list(loads.values()))
    shares: dict[str, tuple[int, ...]] = {}
    start = 0
    for name, count in zip(loads, counts, strict=True):
        shares[name] = own[start : start + count]
        start += count
    return Division(shares, shared=False)


def _by_cost(cores: int, loads: Sequence[StageLoad]) -> list[int]:
    """How many each gets: from the last on its share of what is left, rounded, and the first the rest."""
    counts = [max(1, cores // CORES_A_CORE_FOR_GPUS) if load.on_gpu else 0 for load in loads]
    left, cost_ms = cores - sum(counts), sum(load.cost_ms for load in loads if not load.on_gpu)
    waiting = [number for number, load in enumerate(loads) if not load.on_gpu]
    while waiting:
        number = waiting.pop()
        share = round(left * loads[number].cost_ms / cost_ms) if waiting and cost_ms > 0 else left
        counts[number] = min(max(share, 1), left - len(waiting))
        left -= counts[number]
        cost_ms -= loads[number].cost_ms
    return counts


def format_cores(cores: Sequence[int]) -> str:
    """Write cores the way the configuration wants them: 0-3,6."""
    parts: list[str] = []
    numbers = sorted(cores)
    while numbers:
        first = last = numbers.pop(0)
        while numbers and numbers[0] == last + 1:
            last = numbers.pop(0)
        parts.append(str(first) if first == last else f"{first}-{last}")
    return ",".join(parts)
