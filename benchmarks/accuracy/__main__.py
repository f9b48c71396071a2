"""How well text is read: draw, read, score, and judge.

    python -m benchmarks.accuracy                  all of it; what was read before is kept
    python -m benchmarks.accuracy --only signs     some classes
    python -m benchmarks.accuracy --report         docs/accuracy.md anew, out of the figures of the last run

Each peer has an environment of its own in .venv-peers/, made at the first run. Readings are kept in build/accuracy,
and a reader reads again only what changed: its picture, its version, or for ours the code. CPU times are of
one machine: on another one, the pictures whose times count are read again. Exits 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.accuracy import bars, report
from benchmarks.accuracy.contestants import CONTESTANTS, EARLIER, Settings, code_digest
from benchmarks.accuracy.drawing.catalogue import CLASSES, draw
from benchmarks.accuracy.picture import Stored
from benchmarks.accuracy.readings import kept, machine, read_all, record, recorded
from benchmarks.accuracy.scoring import score_class, word_boxes
from benchmarks.accuracy.sources import fonts, real_pictures

WORK = Path("build/accuracy")
MEASURED = Path(__file__).parent / "measured.json"
# What an earlier version read in the classes in which it was good: so it need not be built to be compared with.
EARLIER_READ = Path(__file__).parent / "earlier.json"


def drawn(only: Sequence[str]) -> dict[str, list[Stored]]:
    """Drawn pictures by class; what is on the disk already is not drawn again."""
    folder = WORK / "drawn" / code_digest(sorted((Path(__file__).parent / "drawing").iterdir()))[:12]
    kinds = [name for name in CLASSES if not only or name in only]
    book = None
    found: dict[str, list[Stored]] = {}
    for name in kinds:
        done = folder / name / ".done"
        if not done.exists():
            book = book or fonts(WORK)
            print(f"drawing {name}", flush=True)
            for number in range(CLASSES[name].pictures):
                draw(name, number, book).save(folder / name / f"{number:03}")
            done.touch()
        paths = sorted(path for path in (folder / name).iterdir() if path.suffix in {".png", ".jpg"})
        found[name] = [Stored.load(path) for path in paths[: CLASSES[name].pictures]]
    return found


def score(pictures: dict[str, list[Stored]], names: Sequence[str]) -> dict[str, Any]:
    """All figures, as plain data."""
    classes: dict[str, Any] = {}
    for kind, stored in pictures.items():
        readings = {name: found for name in names if (found := kept(name, kind, stored, WORK)) is not None}
        if EARLIER not in readings and (old := recorded(kind, stored, EARLIER_READ)) is not None:
            readings[EARLIER] = old
        table = CLASSES.get(kind)
        classes[kind] = score_class(stored, readings, bars.PAIRS).to_dict() | {
            "group": table.group if table else "real",
            "least_f": table.least_f if table else None,
            "least_neighbours": table.least_neighbours if table else None,
            "small_only": table is not None and table.small_only,
        }
        if table and table.boxes and bars.OURS in readings and (boxes := word_boxes(stored, readings[bars.OURS])):
            classes[kind]["boxes"] = asdict(boxes)
        print(f"scored {kind}", flush=True)
    digest = hashlib.sha256("".join(one.digest for found in pictures.values() for one in found).encode()).hexdigest()
    made: dict[str, Any] = {"pictures_sha256": digest, "machine": machine(), "version": _version(), "classes": classes}
    judged = bars.judge(made)
    made["ratios"] = bars.ratios(made)
    made["bars"] = [asdict(bar) | {"passed": bar.passed} for bar in judged]
    made["faults"] = bars.faults(judged)
    return made


def _version() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def main() -> int:
    """Do what is asked, print the table, and say by exit code whether the bars were met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="names of classes")
    parser.add_argument("--readers", nargs="+", choices=list(CONTESTANTS), help="default: all but `earlier`")
    parser.add_argument("--peer-python", type=Path, default=Path(sys.executable), help="of peers: 3.12 or newer")
    parser.add_argument("--other", type=Path, help="checkout of an earlier version, with its .venv, as `earlier`")
    parser.add_argument("--json", type=Path, default=Path("out/accuracy.json"))
    parser.add_argument("--jobs", type=int, default=1, help="processes of a reader side by side, each with a core")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--read-only", action="store_true", help="judge nothing, for a machine that is lent to read")
    only.add_argument("--score-only", action="store_true", help="of what was read before")
    parser.add_argument("--report", action="store_true", help=f"write docs/accuracy.md out of {MEASURED.name} alone")
    parser.add_argument("--remark", nargs="+", default=[], help="sentences about this run, for the page")
    parser.add_argument("--keep", action="store_true", help=f"put the figures into {MEASURED.name}, and write the page")
    options = parser.parse_args()
    if options.report:
        report.write(json.loads(MEASURED.read_text(encoding="utf-8")))
        return 0
    names = options.readers or [name for name in CONTESTANTS if name != EARLIER or options.other]
    pictures = drawn(options.only) | {
        kind: found for kind, found in real_pictures(WORK).items() if not options.only or kind in options.only
    }
    if not options.score_only:
        for name in names:
            read_all(name, pictures, Settings(options.peer_python, options.other), WORK, options.jobs)
    if options.read_only:
        return 0
    results = score(pictures, list(CONTESTANTS)) | {"remarks": options.remark}
    if options.keep:
        results["failures"] = report.draw_failures(results, pictures, WORK)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1) + "\n"
    options.json.write_text(text, encoding="utf-8")
    if options.keep:
        MEASURED.write_text(text, encoding="utf-8")
        if options.other:
            record(EARLIER, bars.STRONG, pictures, WORK, EARLIER_READ)
        report.write(results)
    for line in report.table(results):
        print(line)
    for fault in results["faults"]:
        print(fault)
    print("FAILED" if results["faults"] else "passed")
    return 1 if results["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
