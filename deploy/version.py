"""The one version number: that of pyproject.toml. `python deploy/version.py` tells whether every other place agrees.

`python deploy/version.py 0.2.0` writes it everywhere.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "pyproject.toml"
VERSION = re.compile(r"\d+\.\d+\.\d+([ab]|rc)?\d*")
_NUMBER = r"(\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?)"
# What stands where, beside pyproject.toml. Each pattern matches at least once in each of its files.
PLACES: tuple[tuple[str, str], ...] = (
    ("deploy/helm/sluiceway/Chart.yaml", rf"^version: {_NUMBER}$"),
    ("deploy/helm/sluiceway/Chart.yaml", rf'^appVersion: "{_NUMBER}"$'),
    ("deploy/docker/Dockerfile", rf"^ARG VERSION={_NUMBER}$"),
    ("deploy/docker/Dockerfile", rf"--tag sluiceway/[a-z-]+:{_NUMBER} "),
    ("docker-compose.yml", rf"SLUICEWAY_VERSION:-{_NUMBER}"),
    ("deploy/compose/gpu.yml", rf"SLUICEWAY_VERSION:-{_NUMBER}"),
    ("deploy/kubernetes/sluiceway-*.yaml", rf'app\.kubernetes\.io/version: "{_NUMBER}"'),
    ("deploy/kubernetes/sluiceway-*-deployment.yaml", rf"image: sluiceway/[a-z-]+:{_NUMBER}$"),
)


def version() -> str:
    """The version."""
    return str(tomllib.loads(PROJECT.read_text("utf-8"))["project"]["version"])


def _matches() -> Iterator[tuple[Path, re.Match[str] | None]]:
    for pattern, text in PLACES:
        for path in sorted(ROOT.glob(pattern)):
            found = list(re.finditer(text, path.read_text("utf-8"), re.MULTILINE))
            yield from ((path, match) for match in found or [None])


def faults() -> list[str]:
    """What does not agree with pyproject.toml, a line each."""
    wanted = version()
    return [
        f"{path.relative_to(ROOT)}: {'no version' if match is None else match[1]}, not {wanted}"
        for path, match in _matches()
        if match is None or match[1] != wanted
    ]


def write(new: str) -> None:
    """Write a version everywhere."""
    old = f'version = "{version()}"'
    PROJECT.write_text(PROJECT.read_text("utf-8").replace(old, f'version = "{new}"', 1), "utf-8")
    for pattern, text in PLACES:
        for path in ROOT.glob(pattern):
            content = path.read_text("utf-8")
            path.write_text(
                re.sub(text, lambda match: match[0].replace(match[1], new), content, flags=re.MULTILINE), "utf-8"
            )


def main() -> None:
    """Check, or write."""
    if len(sys.argv) > 1:
        if not VERSION.fullmatch(sys.argv[1]):
            sys.exit(f"{sys.argv[1]} is no version such as 0.2.0")
        write(sys.argv[1])
    if wrong := faults():
        sys.exit("\n".join(wrong))
    print(version())


if __name__ == "__main__":
    main()
