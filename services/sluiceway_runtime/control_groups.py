"""The control groups that this process is in, which say how much of the machine is for it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

__all__ = ["PROC", "SYS", "control_groups", "memory_limit_bytes", "text_of"]

PROC = Path("/proc")
SYS = Path("/sys")


def control_groups(proc: Path, sys: Path, controllers: Collection[str]) -> Iterator[tuple[Path, ...]]:
    """Of each hierarchy the directory of the group that this process is in, and those of its parents, upwards.

    In a container the path may be the host's while only the container's part is mounted: what is missing is skipped.

    Args:
        proc: the proc file system.
        sys: the sys file system, with control groups at `fs/cgroup`.
        controllers: of version 1, the hierarchies of these; that of version 2 has all of them.
    """
    for line in text_of(proc / "self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        named, _, path = rest.partition(":")
        if number == "0" and not named:
            roots: Sequence[Path] = (sys / "fs/cgroup", sys / "fs/cgroup/unified")
        elif set(named.split(",")) & set(controllers):
            # Mounted under the name of all its controllers, or of each; of a single one that is the same.
            roots = tuple(sys / "fs/cgroup" / name for name in dict.fromkeys((named, *named.split(","))))
        else:
            continue
        for root in roots:
            directory = root / path.strip("/")
            upwards = (directory, *directory.parents)
            if groups := tuple(group for group in upwards[: upwards.index(root) + 1] if group.is_dir()):
                yield groups


def memory_limit_bytes(*, proc: Path = PROC, sys: Path = SYS) -> int:
    """How much memory this process and its neighbours in its control group may have; the machine's without a limit."""
    limits = [
        int(text)
        for groups in control_groups(proc, sys, ("memory",))
        for group in groups
        for name in ("memory.max", "memory.limit_in_bytes")
        if (text := text_of(group / name)).isdecimal()
    ]
    for line in text_of(proc / "meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            limits.append(int(value.split()[0]) * 1024)
    return min(limits)


def text_of(path: Path) -> str:
    """Contents, or nothing: any of these files may be missing or closed to us."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8").strip()
    return ""
