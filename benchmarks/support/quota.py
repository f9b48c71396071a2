"""A control group with a quota of CPU time, by whatever means this machine has."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

__all__ = ["Quota", "QuotaUnavailable", "quota"]

GROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 100_000
REMOVE_TIMEOUT_S = 10.0


class QuotaUnavailable(Exception):
    """This machine lets us make no control group; says what was tried."""


@dataclass(frozen=True)
class Quota:
    """A control group.

    Attributes:
        words: before a command, put it and all it starts into the group.
    """

    words: Sequence[str]
    _limit: Callable[[float], None]

    def limit(self, cpus: float) -> None:
        """From now on so many CPUs."""
        self._limit(cpus)


@contextmanager
def quota(cpus: float) -> Iterator[Quota]:
    """A control group that may use so many CPUs, by whatever means this machine has.

    Raises:
        QuotaUnavailable: neither control groups (v1, v2) nor systemd can be used.
    """
    tried: list[str] = []
    for make, limit in ((_version_1, _limit_1), (_version_2, _limit_2)):
        try:
            group = make()
        except OSError as error:
            tried.append(f"{make.__name__.strip('_')}: {error}")
            continue
        try:
            limit(group, cpus)
            # The shell enters the group and becomes the command.
            words = ("sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"))
            yield Quota(words, partial(limit, group))
        finally:
            _remove(group)
        return
    command = ["systemd-run", "--scope", "--quiet", "--property", f"CPUQuota={cpus * 100:.0f}%"]
    if not shutil.which(command[0]) or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        raise QuotaUnavailable("; ".join([*tried, "systemd-run: not usable"]))
    yield Quota(command, _stays)


def _stays(_cpus: float) -> None:
    raise QuotaUnavailable("what systemd-run began cannot be changed")


def _version_1() -> Path:
    own = _own_path(lambda _, controllers: "cpu" in controllers.split(","))
    root = next((path for name in ("cpu", "cpu,cpuacct") if (path := GROUPS / name).is_dir()), GROUPS / "cpu")
    group = root / own / f"quota-{os.getpid()}-{time.monotonic_ns()}"
    group.mkdir()
    return group


def _limit_1(group: Path, cpus: float) -> None:
    (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
    (group / "cpu.cfs_quota_us").write_text(str(round(cpus * PERIOD_US)))


def _version_2() -> Path:
    own = _own_path(lambda number, controllers: number == "0" and not controllers)
    parent = GROUPS / own
    if "cpu" not in (parent / "cgroup.subtree_control").read_text().split():
        (parent / "cgroup.subtree_control").write_text("+cpu")
    group = parent / f"quota-{os.getpid()}-{time.monotonic_ns()}"
    group.mkdir()
    return group


def _limit_2(group: Path, cpus: float) -> None:
    (group / "cpu.max").write_text(f"{round(cpus * PERIOD_US)} {PERIOD_US}")


def _own_path(wanted: Callable[[str, str], bool]) -> str:
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        number, controllers, path = line.split(":", 2)
        if wanted(number, controllers):
            return path.strip("/")
    raise FileNotFoundError("this process is in no such group")


def _remove(group: Path) -> None:
    """A group can be removed when its last process is gone, which may take a moment."""
    end_s = time.monotonic() + REMOVE_TIMEOUT_S
    while time.monotonic() < end_s:
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.05)
