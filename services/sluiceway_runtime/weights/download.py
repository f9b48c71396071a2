"""Get one wheel through pip, so that the user's own index, proxy and certificate settings count."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import sysconfig
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.weights.registry import WheelTags

__all__ = ["Pip", "Progress", "ProgressCallback", "download_wheel", "find_pip"]

# Generous for 75 MB over a slow line; pip itself gives up on a silent connection long before.
DOWNLOAD_TIMEOUT_S = 1800.0
_PROGRESS = re.compile(r"^Progress (\d+) of (\d+)")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull is.

    Attributes:
        name: the model, sample or package.
        step: what is being done.
        done_bytes: so far in this step.
        total_bytes: of this step; 0 while unknown.
    """

    name: str
    step: Literal["download", "extract", "convert", "done"]
    done_bytes: int = 0
    total_bytes: int = 0


ProgressCallback = Callable[[Progress], None]


def download_wheel(
    package: str, version: str, tags: WheelTags | None, directory: Path, progress: ProgressCallback
) -> Path:
    """Download one wheel without its dependencies and without installing it.

    Args:
        package: its name.
        version: exactly this one.
        tags: which wheel, where there is one for each platform.
        directory: where to put it; must be empty.
        progress: called as bytes arrive.

    Returns:
        The wheel.

    Raises:
        StartupError: there is no pip, no connection, or no such package to be had.
    """
    pip = find_pip()
    if pip is None:
        raise StartupError(
            f"cannot download {package}: this Python environment has no pip, and this Python brings none; add it with "
            "`python -m ensurepip` or `uv pip install pip`"
        )
    command = _command(pip, package, version, tags, directory)
    # Not a shell, and every word comes from the registry that ships with the program.
    with subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        overdue = threading.Event()

        def end() -> None:
            overdue.set()
            process.kill()

        timer = threading.Timer(DOWNLOAD_TIMEOUT_S, end)
        timer.start()
        try:
            said = _follow(process, package, progress)
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
    if process.returncode != 0:
        reason = f"it took longer than {DOWNLOAD_TIMEOUT_S:g} s" if overdue.is_set() else _reason(said)
        raise StartupError(f"cannot download {package} {version}: {reason}")
    wheels = sorted(directory.glob("*.whl"))
    if len(wheels) != 1:
        raise StartupError(f"cannot download {package} {version}: pip left {len(wheels)} wheels instead of one")
    return wheels[0]


@dataclass(frozen=True, slots=True)
class Pip:
    """How pip is run.

    Attributes:
        words: the beginning of a command.
        version: as it says itself.
    """

    words: tuple[str, ...]
    version: str


def find_pip() -> Pip | None:
    """The environment's own pip; else the one that Python brings for new environments, which runs out of its wheel.

    An environment made by uv has none of its own. None where Python's makers took theirs out, too.
    """
    if importlib.util.find_spec("pip") is not None:
        return Pip((sys.executable, "-m", "pip"), metadata.version("pip"))
    folders = []
    if (ensurepip := importlib.util.find_spec("ensurepip")) is not None and ensurepip.origin is not None:
        folders.append(Path(ensurepip.origin).parent / "_bundled")
    # Where distributions put them that have one copy for all.
    if shared := sysconfig.get_config_var("WHEEL_PKG_DIR"):
        folders.append(Path(shared))
    for folder in folders:
        for wheel in sorted(folder.glob("pip-*.whl")):
            return Pip((sys.executable, str(wheel / "pip")), wheel.name.split("-")[1])
    return None


def _command(pip: Pip, package: str, version: str, tags: WheelTags | None, directory: Path) -> list[str]:
    command = [*pip.words, "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar", _progress_style(pip)]
    if tags:
        command += ["--python-version", tags.python, "--implementation", "cp"]
        command += ["--abi", tags.abi, "--platform", tags.platform]
    return [*command, "--dest", str(directory), f"{package}=={version}"]


def _progress_style(pip: Pip) -> str:
    """Return the bar that a program can read, which pip has since 24.1."""
    numbers = re.findall(r"\d+", pip.version)[:2]
    return "raw" if tuple(map(int, numbers)) >= (24, 1) else "off"


def _follow(process: subprocess.Popen[str], package: str, progress: ProgressCallback) -> deque[str]:
    said: deque[str] = deque(maxlen=40)
    progress(Progress(package, "download"))
    assert process.stdout is not None
    for line in process.stdout:
        match = _PROGRESS.match(line)
        if match:
            progress(Progress(package, "download", int(match[1]), int(match[2])))
        elif line.strip():
            said.append(line.strip())
    return said


def _reason(said: deque[str]) -> str:
    """Pick what pip complained about; its last error line says it best."""
    errors = [line.removeprefix("ERROR:").strip() for line in said if line.startswith("ERROR:")]
    text = errors[-1] if errors else (said[-1] if said else "pip said nothing")
    if any("connection" in line.lower() or "Max retries" in line or "resolve" in line.lower() for line in said):
        return f"{text} (is this machine offline?)"
    return text
