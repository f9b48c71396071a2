"""Every target of make that a document, a comment or a benchmark names exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`make ([a-z][a-z-]*)\b")


def test_named_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    files = ["git", "ls-files", "*.md", "*.py", "*.yml"]
    listed = subprocess.run(files, cwd=ROOT, capture_output=True, text=True, check=True)
    unknown = {
        f"{name}: make {target}"
        for name in listed.stdout.splitlines()
        if (ROOT / name).is_file()
        for target in NAMED.findall((ROOT / name).read_text("utf-8"))
        if target not in targets
    }
    assert not unknown
    assert targets
