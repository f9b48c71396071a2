"""Rules of the house that no linter knows: who sees generated code, how long a module may be, what is never named."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("sluiceway", "services", "orchestrator", "cluster")
# Modules that turn messages into our own types and back, and those that make or serve calls.
SEES_MESSAGES = {"servicer", "convert", "clients", "service", "inference", "connection"}
# The same where there are too many for one module: a package of the former, and the orchestrator's calls of stages.
ROOMS = {"convert", "stages"}
MAX_LINES = 400


def tracked(*suffixes: str) -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [path for name in names if name.endswith(suffixes) and (path := ROOT / name).is_file()]


def ours() -> list[Path]:
    return [path for path in tracked(".py") if path.relative_to(ROOT).parts[0] in PACKAGES and "_pb2" not in path.name]


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_generated_code_stays_at_the_border() -> None:
    offenders = [
        str(path.relative_to(ROOT))
        for path in ours()
        if any(re.search(r"sluiceway\.\w+\.v1\..*_pb2", name) for name in imports(path))
        and path.stem not in SEES_MESSAGES
        and path.parent.name not in ROOMS
        and "testing" not in path.parts
    ]
    assert offenders == []


@pytest.mark.parametrize("limit", [MAX_LINES])
def test_modules_can_be_read_in_one_sitting(limit: int) -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in tracked(".py")
        if "_pb2" not in path.name and "tests" not in path.parts
    }
    assert {name: length for name, length in lengths.items() if length > limit} == {}


def test_every_public_module_says_what_it_offers() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in ours()
        if path.stem not in ("__init__", "__main__")
        and path.read_text(encoding="utf-8").strip()
        and "__all__" not in path.read_text(encoding="utf-8")
    ]
    assert silent == []


def test_time_is_told_by_one_clock() -> None:
    """What a cluster decides by time can be simulated only if all of it asks the same clock.

    Workers measure with the machine's own: their times are what a simulation takes from a profile.
    """
    fronts = [*(ROOT / "orchestrator").rglob("*.py"), *(ROOT / "services").rglob("servicer.py")]
    fronts += [*(ROOT / "services").rglob("flow.py"), *(ROOT / "services/sluiceway_runtime/server").rglob("*.py")]
    fronts += [ROOT / "services/sluiceway_runtime" / name for name in ("account.py", "deadline.py")]
    clocks = {f"time.{name}" for name in ("monotonic", "perf_counter", "time", "sleep")} | {"time"}
    assert {str(path.relative_to(ROOT)): found for path in fronts if (found := imports(path) & clocks)} == {}
