"""Put the figures of a benchmark's JSON into docs/performance.md, between the marks of its table.

python benchmarks/support/performance_rows.py out/bench-recognition.json [--mark recognition-gpu]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["filled", "rows"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"


def rows(report: Mapping[str, Any]) -> list[str]:
    """A table of every bar that was judged, and one of the figures."""
    machine = report["machine"]
    where = ", ".join(filter(None, [machine["gpu"], f"{machine['cores']} cores", machine["processor"]]))
    judged = [bar for bar in report["bars"] if bar["passed"] is not None]
    lines = [f"Measured on {where}.", ""]
    lines += ["| bar | measured | must be | |", "|---|---|---|---|"]
    for bar in judged:
        word = "passed" if bar["passed"] else "**failed**"
        lines.append(f"| `{bar['name']}` | {_number(bar['value'])} | {bar['must_be']} | {word} |")
    lines += ["", "| figure | |", "|---|---|"]
    lines += [f"| `{name}` | {_number(value)} |" for name, value in report["figures"].items()]
    return lines


def filled(document: str, mark: str, lines: list[str]) -> str:
    """The document with new lines between its two marks.

    Raises:
        ValueError: it has no such marks.
    """
    begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->\n"
    head, _, rest = document.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise ValueError(f"the document has no marks {begin.strip()} and {end.strip()}")
    return head + begin + "\n".join(lines) + "\n" + end + tail


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--mark", default="")
    arguments = parser.parse_args()
    report = json.loads(arguments.report.read_text(encoding="utf-8"))
    mark = arguments.mark or ("recognition-gpu" if report["machine"]["gpu"] else "recognition-cpu")
    DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8"), mark, rows(report)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
