"""A control group with a quota of CPU time, by whatever means this machine has."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["QuotaUnavailable", "quota"]

GROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 100_000
REMOVE_TIMEOUT_S = 10.0


class QuotaUnavailable(Exception):
    """This machine lets us make no control group; says what was tried."""


@contextmanager
def quota(cpus: float) -> Iterator[Sequence[str]]:
    """Words before a command that put it, and all it starts, under a quota of so many CPUs.

    Raises:
        QuotaUnavailable: neither control groups (v1, v2) nor systemd can be used.
    """
    tried: list[str] = []
    for make in (_version_1, _version_2):
        try:
            group = make(cpus)
        except OSError as error:
            tried.append(f"{make.__name__.strip('_')}: {error}")
            continue
        try:
            # The shell enters the group and becomes the command.
            yield ("sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"))
        finally:
            _remove(group)
        return
    command = ["systemd-run", "--scope", "--quiet", "--property", f"CPUQuota={cpus * 100:.0f}%"]
    if (
        shutil.which(command[0])
        and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    ):
        yield command
        return
    raise QuotaUnavailable("; ".join([*tried, "systemd-run: not usable"]))


def _version_1(cpus: float) -> Path:
    own = _own_path(lambda _, controllers: "cpu" in controllers.split(","))
    root = next((path for name in ("cpu", "cpu,cpuacct") if (path := GROUPS / name).is_dir()), GROUPS / "cpu")
    group = root / own / f"bench-{os.getpid()}-{time.monotonic_ns()}"
    group.mkdir()
    with _removed_on_error(group):
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(round(cpus * PERIOD_US)))
    return group


def _version_2(cpus: float) -> Path:
    own = _own_path(lambda number, controllers: number == "0" and not controllers)
    parent = GROUPS / own
    if "cpu" not in (parent / "cgroup.subtree_control").read_text().split():
        (parent / "cgroup.subtree_control").write_text("+cpu")
    group = parent / f"bench-{os.getpid()}-{time.monotonic_ns()}"
    group.mkdir()
    with _removed_on_error(group):
        (group / "cpu.max").write_text(f"{round(cpus * PERIOD_US)} {PERIOD_US}")
    return group


def _own_path(wanted: Callable[[str, str], bool]) -> str:
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        number, controllers, path = line.split(":", 2)
        if wanted(number, controllers):
            return path.strip("/")
    raise FileNotFoundError("this process is in no such group")


@contextmanager
def _removed_on_error(group: Path) -> Iterator[None]:
    try:
        yield
    except OSError:
        group.rmdir()
        raise


def _remove(group: Path) -> None:
    """A group can be removed when its last process is gone, which may take a moment."""
    end_s = time.monotonic() + REMOVE_TIMEOUT_S
    while time.monotonic() < end_s:
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.05)
