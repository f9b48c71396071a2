"""Which graphs fit into the memory of a device: measured at two sizes, reckoned for the rest."""

from __future__ import annotations

from collections.abc import Sequence

from sluiceway_runtime.gpu.shapes import Shape

__all__ = ["budget_bytes", "fitting", "probes"]

# Left to the driver's context, libraries' workspaces and fragmentation, which nobody can reckon.
USABLE = 0.9


def budget_bytes(free_bytes: int, total_bytes: int, workers: int) -> int:
    """What one of several workers may take of a device.

    Args:
        free_bytes: now, or held by this process; a worker beside this one may have taken its share already, or not yet.
        total_bytes: of the device.
        workers: that share the device.
    """
    return int(min(free_bytes, total_bytes / workers) * USABLE)


def probes(shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    """The shapes to measure: two whose difference says what a byte of input costs, the smaller first.

    Small ones, so that measuring itself does not run out of memory; apart, so that fixed workspaces cancel out.
    """
    ordered = sorted(shapes, key=lambda shape: shape.size_bytes)
    if len(ordered) < 2:
        return tuple(ordered)
    first = ordered[0]
    second = next((shape for shape in ordered if shape.size_bytes >= 8 * first.size_bytes), ordered[-1])
    return (first, second) if second.size_bytes > first.size_bytes else (first,)


def fitting(shapes: Sequence[Shape], measured: Sequence[tuple[Shape, int]], available_bytes: int) -> list[Shape]:
    """The shapes that fit, in their order.

    Args:
        shapes: wanted.
        measured: most memory taken while computing, of `probes(shapes)`.
        available_bytes: for the largest of them; they take turns.

    Returns:
        All whose reckoned need is within bounds; the smallest stays in any case, and proves itself when it is made.
    """
    if len(measured) < 2:
        return list(shapes)
    (small, least), (large, more) = measured
    slope = max(more - least, 0) / (large.size_bytes - small.size_bytes)
    smallest = min(shapes, key=lambda shape: shape.size_bytes)

    def need(shape: Shape) -> float:
        return least + slope * (shape.size_bytes - small.size_bytes)

    return [shape for shape in shapes if shape == smallest or need(shape) <= available_bytes]
