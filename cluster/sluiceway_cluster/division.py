"""Who gets which cores: decided once for the whole machine, so that no two stages fight over one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Division", "StageLoad", "divide", "format_cores"]

# Words in a typical photograph or scan; a recogniser's cost for one image is this many times its cost for one word.
WORDS_PER_IMAGE = 17
# Below this, giving a stage cores of its own would leave them idle while the other stage is the narrow place: with two
# cores, detection alone would be limited to one. Workers of both stages are pinned to every core instead, one thread
# each; that costs 8% against a perfect split where a wrong split costs up to half.
MIN_CORES_TO_SPLIT = 4
# A stage on a GPU still has a front process and feeds the device.
CORES_FOR_GPU_STAGE = 1


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
    """Cores for each stage; `shared` when both have the same."""

    detection: tuple[int, ...]
    recognition: tuple[int, ...]
    shared: bool


def divide(cores: Sequence[int], detection: StageLoad, recognition: StageLoad) -> Division:
    """Divide cores in proportion to what an image costs in each stage.

    Args:
        cores: that this process may use, neighbours in order.
        detection: its load.
        recognition: its load.

    Returns:
        Disjoint cores, at least one each; or all for both where there are too few to split.
    """
    own = tuple(cores)
    if len(own) < MIN_CORES_TO_SPLIT and not (recognition.on_gpu and len(own) > 1):
        return Division(own, own, shared=True)
    if detection.on_gpu and recognition.on_gpu:
        half = (len(own) + 1) // 2
        return Division(own[:half], own[half:], shared=False)
    if recognition.on_gpu:
        share = CORES_FOR_GPU_STAGE
    elif detection.on_gpu:
        share = len(own) - CORES_FOR_GPU_STAGE
    else:
        share = round(len(own) * recognition.cost_ms / (detection.cost_ms + recognition.cost_ms))
    share = min(max(share, 1), len(own) - 1)
    return Division(own[:-share], own[-share:], shared=False)


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
