"""Character lists."""

from __future__ import annotations

from pathlib import Path

import pytest
from sluiceway_recognition.text import characters
from sluiceway_runtime.errors import StartupError


def test_metadata_is_split_at_line_feeds_only() -> None:
    # The others are line ends to `str.splitlines`, and entries of real lists.
    assert characters.from_metadata("a\n\u2028\n\x0b\n\x85\nb") == ("a", "\u2028", "\x0b", "\x85", "b")


def test_an_inference_config_keeps_quoted_digits_and_signs(tmp_path: Path) -> None:
    file = tmp_path / "inference.yml"
    file.write_text("PostProcess:\n  character_dict:\n  - '!'\n  - ''''\n  - '0'\n  - \\\n  - 漢\n", encoding="utf-8")
    assert characters.from_inference_config(file) == ("!", "'", "0", "\\", "漢")


@pytest.mark.parametrize(
    "text", ["", "PostProcess: {}", "PostProcess:\n  character_dict: [1, 2]", "[", "- a", "PostProcess:"]
)
def test_an_inference_config_without_a_list_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "inference.yml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(StartupError, match=r"inference\.yml.*"):
        characters.from_inference_config(file)


def test_a_text_file_has_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_bytes("a\r\nb\n\u3000\n".encode())
    assert characters.from_text_file(file) == ("a", "b", "\u3000")
    file.write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    assert characters.from_text_file(file) == ("a", "b")
    with pytest.raises(StartupError, match="cannot be read"):
        characters.from_text_file(tmp_path / "missing.txt")


def test_the_blank_stands_at_an_end_and_the_number_of_classes_tells_of_a_space() -> None:
    assert characters.with_blank(("a", "b"), 4, source="m") == ("", "a", "b", " ")
    assert characters.with_blank(("a", "b"), 3, source="m") == ("", "a", "b")
    assert characters.with_blank(("a", "b"), 3, "last", source="m") == ("a", "b", "")
    assert characters.with_blank(("a", "b"), 4, "last", source="m") == ("a", "b", " ", "")
    # As PaddleOCR makes the classes of `en_dict.txt`, which has a space of its own.
    assert characters.with_blank(("a", " "), 4, source="m") == ("", "a", " ", " ")


@pytest.mark.parametrize("classes", [2, 5])
def test_a_list_of_another_model_is_refused(classes: int) -> None:
    with pytest.raises(StartupError, match=f"has {classes} classes, but its character list makes 3 .*, or 4 with a"):
        characters.with_blank(("a", "b"), classes, source="m")
