"""Make the chart's README from the comments in its values: `python deploy/helm/readme.py [--check]`.

Each key is a row: its default, and the comment above it. A comment that a blank line parts from the next key is about
none and left out.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHART = Path(__file__).parent / "sluiceway"
TARGET = CHART / "README.md"
# What it repeats are the tables of two kinds, by reference.
REPEATED = "stageDefaults"
KEY = re.compile(r"^(?P<indent> *)(?P<name>[A-Za-z][A-Za-z0-9_]*):(?: &\w+)?(?: (?P<value>.*))?$")

INTRODUCTION = """# The chart of Sluiceway

Made by `deploy/helm/readme.py` from `values.yaml`; change the comments there.

```
helm install eye . --namespace sluiceway --create-namespace --set image.registry=registry.example.org/team --wait
helm test eye --namespace sluiceway
```

`helm test` has the release read a picture. `values-small.yaml` is a profile for a node of two cores. How the parts work
together, and examples, stand in `docs/kubernetes.md` of the sources. `values.schema.json` refuses what is not in these
tables.
"""


@dataclass(frozen=True)
class Row:
    """One key: its path, its default as written, and what the comment says."""

    path: tuple[str, ...]
    default: str
    text: str


def rows(values: str) -> Iterator[Row]:
    """Read keys with their comments, in their order; tables are rows only where something is said of them."""
    path: list[str] = []
    comment: list[str] = []
    for line in values.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.removeprefix("#").removeprefix(" "))
            continue
        if match := KEY.match(line):
            path = [*path[: len(match["indent"]) // 2], match["name"]]
            value = match["value"] or ""
            if path[0] != REPEATED and (value or comment):
                yield Row(tuple(path), value, told(comment))
        elif stripped:
            raise SystemExit(f"values.yaml: neither a comment nor `key: value`: {line}")
        comment = []


def told(comment: list[str]) -> str:
    """One line of a comment; an indented block in it is an example, which `values.yaml` shows."""
    return " ".join(line for line in comment if line and not line.startswith("  "))


def page(values: str) -> str:
    """The whole README."""
    found = list(rows(values))
    sections: dict[str, list[Row]] = {}
    for row in found:
        sections.setdefault(row.path[0], []).append(row)
    # Keys that stand alone share the first table.
    alone = [section for section, own in sections.items() if len(own) == 1]
    tables = {"The whole release": [sections.pop(section)[0] for section in alone]} | sections
    parts = [INTRODUCTION]
    for title, own in tables.items():
        parts.append(f"\n## {title}\n\n| key | default | |\n|---|---|---|\n")
        for row in own:
            default = f"`{row.default}`" if row.default else ""
            cells = (f"`{'.'.join(row.path)}`", default, row.text)
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells).rstrip() + " |\n")
    return "".join(parts)


def main() -> int:
    """Write or check the file; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only tell whether the file is current")
    text = page((CHART / "values.yaml").read_text(encoding="utf-8"))
    if parser.parse_args().check:
        current = TARGET.exists() and TARGET.read_text(encoding="utf-8") == text
        print("current" if current else f"{TARGET.name} is not current: run deploy/helm/readme.py")
        return 0 if current else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
