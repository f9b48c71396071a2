"""docs/reliability.md promises tests: each one that it names has to be there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"


def names_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds) and node.name.startswith("test_")}


def test_every_test_that_the_page_names_is_there() -> None:
    named = re.findall(r"`([a-z_/]+\.py)::(test_\w+)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) > 40
    missing = [f"{file}::{name}" for file, name in named if name not in names_in(ROOT / "tests" / file)]
    assert not missing


def test_every_test_of_a_fault_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    files = [file for file in Path(__file__).parent.glob("test_*.py") if file != Path(__file__)]
    left_out = [f"{file.name}::{name}" for file in files for name in names_in(file) if name not in page]
    assert not left_out
