"""Pin what goes into the images: `python deploy/docker/lock.py` (needs uv, from the `deploy` dependency group).

Writes one file for each role into `deploy/docker/requirements/`, each package at one version with the hashes of all
its files. Every architecture has to resolve to the same versions, with wheels for each, or nothing is written. Versions
that are there stay unless `--upgrade` is given or `pyproject.toml` asks for others. With `--check` nothing is written,
and the exit code is 1 if a file would change.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "deploy" / "docker" / "requirements"
# Which extras of the distribution each image has. Traces are switched on by variables, in every image.
ROLES = {
    "orchestrator": ("orchestrator", "otel"),
    "detection": ("detection", "otel"),
    "recognition-cpu": ("recognition", "otel"),
    "recognition-gpu": ("gpu", "otel"),
}
# With these tools the wheel is built, without build isolation, so that they are pinned as well.
BUILD = "build"
PYTHON = "3.11"
# The architectures of the images, with the C library of their base: OpenVINO has wheels for arm64 from 2.35 on.
ARCHITECTURES = ("x86_64-manylinux_2_36", "aarch64-manylinux_2_36")
HEADER = "# Made by deploy/docker/lock.py from pyproject.toml; do not edit.\n"


def lock(role: str, output: Path, *, upgrade: bool) -> None:
    """Resolve one role into `output`, keeping the versions that stand there; the same for every architecture."""
    first, *others = ARCHITECTURES
    resolve(role, output, first, upgrade=upgrade)
    wanted = output.read_text(encoding="utf-8")
    for other in others:
        # From the same versions: what is left out or added there is another set of packages.
        again = output.with_suffix(f".{other}")
        again.write_text(wanted, encoding="utf-8")
        resolve(role, again, other, upgrade=False)
        if again.read_text(encoding="utf-8") != wanted:
            raise SystemExit(f"{role}: {other} resolves to other versions than {first}; give pyproject.toml a bound")


def resolve(role: str, output: Path, architecture: str, *, upgrade: bool) -> None:
    """Resolve one role for one architecture, from wheels alone as the images do."""
    command = ["uv", "pip", "compile", "--quiet", "--no-config", "--python-version", PYTHON]
    command += ["--python-platform", architecture, "--no-build", "--generate-hashes", "--no-header", "--no-annotate"]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--output-file", str(output)]
    command += ["--upgrade"] if upgrade else []
    # The images carry the release of torch that the tests are run with.
    tested = output.with_suffix(".constraints")
    tested.write_text(tested_torch(), encoding="utf-8")
    command += ["--constraints", str(tested)]
    given = None
    if role == BUILD:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        given = "\n".join(project["build-system"]["requires"])
        command.append("-")
    else:
        for extra in ROLES[role]:
            command += ["--extra", extra]
        command.append("pyproject.toml")
    # The words of the command are all from this file.
    subprocess.run(command, cwd=ROOT, check=True, text=True, input=given, stdout=subprocess.DEVNULL)  # noqa: S603


def tested_torch() -> str:
    """Return what the Makefile says about torch, one requirement a line."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(r"^TORCH := (.+)$", makefile, re.MULTILINE)
    if found is None:
        raise SystemExit("the Makefile no longer names the tested release of torch (TORCH := ...)")
    return found[1].replace(" ", "\n")


def current(path: Path) -> str:
    """Return a file's text without its first line, the header; empty if there is no file."""
    return path.read_text(encoding="utf-8").removeprefix(HEADER) if path.exists() else ""


def main() -> int:
    """Write or check every file; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only tell whether the files are current")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that pyproject.toml allows")
    options = parser.parse_args()
    if shutil.which("uv") is None:
        print("uv is not installed: pip install uv", file=sys.stderr)
        return 2
    stale = []
    with tempfile.TemporaryDirectory() as folder:
        for role in (*ROLES, BUILD):
            wanted, made = REQUIREMENTS / f"{role}.txt", Path(folder) / f"{role}.txt"
            if before := current(wanted):
                made.write_text(before, encoding="utf-8")
            lock(role, made, upgrade=options.upgrade)
            after = made.read_text(encoding="utf-8")
            if after != before:
                stale.append(role)
                if not options.check:
                    wanted.write_text(HEADER + after, encoding="utf-8")
    print(f"changed: {', '.join(stale)}" if stale else "current")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
