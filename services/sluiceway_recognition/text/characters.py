"""The character list of a text model, and which of its classes is the blank.

PP-OCR has the blank first, then the characters, and a space last that no list names. Others have the blank last
(docTR), and no space but that of their list, or none at all. What the list does not say, the number of classes does.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from sluiceway_runtime.errors import StartupError

__all__ = ["METADATA_KEY", "from_inference_config", "from_metadata", "from_text_file", "labels_of", "with_blank"]

# Where PP-OCR exports keep their characters in an ONNX file.
METADATA_KEY = "character"
BLANK = ""


def from_metadata(text: str) -> tuple[str, ...]:
    """Characters from the value of the ONNX metadata key.

    Split on the line feed only: `str.splitlines` would also split at characters that are entries of the list.
    """
    return tuple(text.split("\n"))


def labels_of(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Class names of a classifier that ultralytics exported: `names`, a table of number to name; else none."""
    try:
        names = ast.literal_eval(metadata.get("names", ""))
        return tuple(str(names[number]) for number in range(len(names)))
    except (ValueError, SyntaxError, TypeError, KeyError):
        # Whatever else a file keeps there: its classes are then named by number.
        return ()


def from_text_file(path: Path) -> tuple[str, ...]:
    """Characters from a UTF-8 file with one on each line, as PP-OCR ships beside older models.

    Raises:
        StartupError: unreadable.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # editors on Windows put a mark before the first character
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"the character list {path} cannot be read: {error}") from error
    return tuple(line.removesuffix("\r") for line in text.removesuffix("\n").split("\n"))


def from_inference_config(path: Path) -> tuple[str, ...]:
    """Characters from `PostProcess.character_dict` of a PP-OCR `inference.yml`.

    Raises:
        StartupError: unreadable, or without such a list of strings.
    """
    # The C loader reads the 60 kB in a tenth of the time; a build of PyYAML may lack it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        tables = yaml.load(path.read_bytes(), Loader=loader)  # noqa: S506 - both loaders are the safe ones
        characters = tables["PostProcess"]["character_dict"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise StartupError(f"{path} has no PostProcess.character_dict: {error!r}") from error
    if not isinstance(characters, list) or not all(isinstance(character, str) for character in characters):
        raise StartupError(f"PostProcess.character_dict in {path} must be a list of strings")
    return tuple(characters)


def with_blank(
    characters: tuple[str, ...], class_count: int, blank: Literal["first", "last"] = "first", *, source: str
) -> tuple[str, ...]:
    """The class names of a text model.

    Args:
        characters: of its list, without the blank.
        class_count: of the model's output. One more than the characters and the blank is a space behind them.
        blank: where it is among the classes.
        source: names the model in the error.

    Returns:
        `class_count` strings; that of the blank is empty.

    Raises:
        StartupError: list and model do not belong together; every string would be wrong.
    """
    # PaddleOCR puts a space behind some lists that have one already (`en_dict.txt`), so only the number tells.
    named = (*characters, " ") if class_count == len(characters) + 2 else characters
    if len(named) + 1 != class_count:
        raise StartupError(
            f"{source}: the model has {class_count} classes, but its character list makes {len(characters) + 1} "
            f"({len(characters)} characters and the blank), or {len(characters) + 2} with a space"
        )
    return (BLANK, *named) if blank == "first" else (*named, BLANK)
