"""Environments of other programs: each has one of its own, in `.venv-peers/`, made when it is first asked for."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

__all__ = ["ENVIRONMENTS", "environment", "shared"]

ENVIRONMENTS = Path(__file__).parents[2] / ".venv-peers"


def shared(*names: str) -> list[str]:
    """Requirements of the very versions that this environment has."""
    return [f"{name}=={version(name)}" for name in names]


def environment(name: str, requirements: Sequence[str], python: Path) -> Path:
    """The Python of an environment that holds these requirements.

    Args:
        name: of its folder.
        requirements: with their versions; if they are others than last time, they are installed anew.
        python: what it is made with.

    Raises:
        SystemExit: there is no such Python.
    """
    folder = ENVIRONMENTS / name
    made, ready = folder / "bin" / "python", folder / ".ready"
    wanted = "\n".join([*requirements, ""])
    if ready.exists() and ready.read_text(encoding="utf-8") == wanted:
        return made
    found = shutil.which(python)
    if found is None:
        raise SystemExit(f"{name} needs a Python of its own, and {python} is none")
    print(f"making {folder}", flush=True)
    if not made.exists():
        subprocess.run([found, "-m", "venv", folder], check=True)
    subprocess.run(
        [made, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", *requirements],
        check=True,
    )
    ready.write_text(wanted, encoding="utf-8")
    return made
