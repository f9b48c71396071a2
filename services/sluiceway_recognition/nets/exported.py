"""Programs of `torch.export`, as users bring them: checked to hold nothing that runs, then loaded.

The format may hold pickled objects and symbolic expressions, and torch's reader runs whatever is in them. So the file
is looked through first, and one that holds more than tensors and a graph is refused.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from sluiceway_runtime.errors import StartupError

__all__ = ["load_program", "program_output"]

CHARACTERS = "character"
_EXPRESSION_KEY: Final = "expr_str"
# `Mul(Integer(8), Symbol('s94', positive=True, integer=True))`: names of symbols, numbers, and calls of these alone.
_TOKENS = re.compile(r"'[A-Za-z]\w*'|[A-Za-z_]\w*|\d+(\.\d+)?|[(),=\s*+/<>-]")
_NAMES = {"Symbol", "Integer", "Rational", "Float", "Add", "Mul", "Pow", "Mod", "Max", "Min", "Abs", "oo", "Identity"}
_NAMES |= {"Eq", "Ne", "Ge", "Gt", "Le", "Lt", "And", "Or", "Not", "Where", "ceiling", "floor", "True", "False"}
_NAMES |= {"FloorDiv", "CleanDiv", "CeilDiv", "PythonMod", "ModularIndexing", "IntTrueDiv", "FloatTrueDiv"}
_NAMES |= {"ToFloat", "FloorToInt", "CeilToInt", "TruncToInt", "Equality", "Unequality", "GreaterThan", "LessThan"}
_NAMES |= {"StrictGreaterThan", "StrictLessThan", "positive", "negative", "nonnegative", "nonzero", "zero"}
_NAMES |= {"integer", "real", "finite", "evaluate"}
_SYMBOL = re.compile(r"[a-z]+\d+")


def load_program(path: Path) -> tuple[Any, dict[str, str]]:
    """Read a program on the CPU.

    Args:
        path: a file of `torch.export.save`.

    Returns:
        The `torch.export.ExportedProgram`, and the extra files that were saved with it (`character`: the characters of
        a text model, one on each line).

    Raises:
        StartupError: unreadable, or with something in it that could run.
    """
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about a pickle that it is about to refuse
            _check(archive)
    except Exception as error:  # of zip, JSON and pickle readers, which share no base class
        raise StartupError(f"{path} cannot be read as a program of torch.export: {error}") from error
    extra: dict[str, Any] = {CHARACTERS: ""}
    try:
        program = torch.export.load(path, extra_files=extra)
    except Exception as error:  # torch raises whatever its parsing runs into
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StartupError(f"{path} cannot be read as a program of torch.export: {first}") from error
    return program, {key: str(value) for key, value in extra.items() if value}


def program_output(program: Any, index: int) -> Any:
    """The node of the graph that gives one of the program's outputs."""
    graph = program.graph_module.graph
    output = next(node for node in graph.nodes if node.op == "output")
    name = program.graph_signature.user_outputs[index]
    return next(node for node in output.args[0] if getattr(node, "name", None) == name)


def _check(archive: zipfile.ZipFile) -> None:
    names = archive.namelist()
    if not any("/models/" in name and name.endswith(".json") for name in names):
        raise ValueError("it holds no graph")
    for name in names:
        inner = name.partition("/")[2]
        if inner.startswith("data/aotinductor") or inner.endswith((".so", ".cpp")):
            raise ValueError("it holds machine code")
        if re.match(r"data/(weights|constants)/.*\.pt$", inner) or re.match(r"data/constants/(custom|opaque)", inner):
            raise ValueError("it holds pickled objects; save it again with this release of torch")
        if inner.endswith("_config.json") and any(_values(json.loads(archive.read(name)), "use_pickle")):
            raise ValueError("it holds pickled tensors")
        if inner.startswith("data/sample_inputs/"):
            # Where this fails torch would go on to unpickle it in full.
            torch.load(io.BytesIO(archive.read(name)), weights_only=True)
        if inner.startswith("models/"):
            for expression in _values(json.loads(archive.read(name)), _EXPRESSION_KEY):
                _check_expression(str(expression))


def _check_expression(text: str) -> None:
    position = 0
    while position < len(text):
        token = _TOKENS.match(text, position)
        word = token.group() if token is not None else ""
        named = word[:1].isalpha() and word not in _NAMES and not _SYMBOL.fullmatch(word)
        if not word or word.startswith("_") or named:
            raise ValueError(f"it holds an expression that is no arithmetic: {text[:60]!r}")
        position += len(word)


def _values(tree: Any, key: str) -> Iterator[Any]:
    """Every value of a key, however deep."""
    if isinstance(tree, dict):
        if key in tree:
            yield tree[key]
        for value in tree.values():
            yield from _values(value, key)
    elif isinstance(tree, list):
        for value in tree:
            yield from _values(value, key)
