"""Change `pool/policy` line by line, and see which changes its own tests do not notice: `make mutate-policy`.

Works on a copy in `build/mutation`. Fails below the bar. Each survivor is listed, with its reason from `survivors.txt`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORK = ROOT / "build" / "mutation"
PACKAGE = ROOT / "services" / "sluiceway_runtime"
TESTS = ROOT / "tests" / "unit" / "runtime" / "pool"
SUPPORT = ROOT / "tests" / "support"
# Of the mutants that are no equivalent of the original, how many have to be noticed.
BAR = 0.9
# The tests of policy alone. The generated sequences are left out: what they notice depends on chance, and each run of
# them takes as long as all the others.
FILES = ("conftest.py", "test_machine.py", "test_parts.py", "test_scheduler_*.py", "policy/*.py")
LEFT_OUT = "test_scheduler_property.py"
SETUP = """[mutmut]
source_paths=src
only_mutate={modules}
pytest_add_cli_args_test_selection=tests
pytest_add_cli_args=
  -p
  no:cacheprovider
"""
PYTEST = f"[pytest]\nasyncio_mode = auto\ntimeout = 20\npythonpath = {SUPPORT}\n"


def prepare(module: str) -> None:
    """Copy what is needed to where it may be changed."""
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.copytree(PACKAGE, WORK / "src" / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    for pattern in FILES:
        for file in TESTS.glob(pattern):
            if file.name != LEFT_OUT:
                copy = WORK / "tests" / file.relative_to(TESTS)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)
    modules = f"src/{PACKAGE.name}/pool/policy/{module}.py"
    (WORK / "setup.cfg").write_text(SETUP.format(modules=modules))
    (WORK / "pytest.ini").write_text(PYTEST)


def mutmut(*words: str) -> str:
    """Run it; what it says goes to a file as well, as it draws while it works."""
    command = [sys.executable, "-m", "mutmut", *words]
    done = subprocess.run(command, cwd=WORK, capture_output=True, text=True, check=False)
    (WORK / f"{words[0]}.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return done.stdout


def survivors() -> list[str]:
    """Each as `module.Class.method: what it was -> what it became`."""
    found = []
    for name in re.findall(r"^\s*(\S+): survived$", mutmut("results"), re.MULTILINE):
        shown = mutmut("show", name).splitlines()
        before = " ".join(line[1:].strip() for line in shown if re.match(r"-(?!--)", line))
        after = " ".join(line[1:].strip() for line in shown if re.match(r"\+(?!\+\+)", line))
        where = re.sub(r"__mutmut_\d+$", "", name.rpartition("policy.")[2])
        where = where.replace("xǁ", "").replace("ǁ", ".").replace(".x_", ".")
        found.append(f"{where}: {before} -> {after}".rstrip())
    return found


def reasons() -> dict[str, str]:
    """Survivors that may survive, and why: a line of `#` above each."""
    known, why = {}, ""
    for line in (HERE / "survivors.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            why = line[1:].strip()
        elif line.strip():
            known[line.strip()] = why
    return known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--module", default="*", help="one module of policy, such as machine")
    parser.add_argument("--at-once", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    prepare(arguments.module)
    mutmut("run", "--max-children", str(arguments.at_once))
    mutmut("export-cicd-stats")
    totals = json.loads((WORK / "mutants" / "mutmut-cicd-stats.json").read_text())
    known, left = reasons(), survivors()
    unexplained = [survivor for survivor in left if survivor not in known]
    told = totals["total"] - totals.get("skipped", 0) - (len(left) - len(unexplained))
    noticed = totals["killed"] + totals.get("timeout", 0)
    score = noticed / told if told else 1.0
    print(json.dumps(totals))
    for survivor in left:
        print(f"  {survivor}   [{known.get(survivor, 'NO REASON GIVEN')}]")
    print(f"{noticed} of {told} noticed: {score:.3f} (bar {BAR}); {len(left) - len(unexplained)} have a reason")
    sys.exit(score < BAR)


if __name__ == "__main__":
    main()
