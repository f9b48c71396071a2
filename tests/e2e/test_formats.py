"""`run --format`: what comes on standard output, and as files."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pypdfium2
import pytest
from pseudo_terminal import COMMAND, plain, type_command

FORMATS = {"text": "txt", "markdown": "md", "csv": "csv", "hocr": "hocr", "alto": "xml", "searchable-pdf": "pdf"}


def run(up: Any, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = [*COMMAND, "run", *map(str, arguments), "--address", up.address]
    return subprocess.run(command, capture_output=True, timeout=110, check=False)


def words_of(form: str, data: bytes) -> list[str]:
    """Every word of a document, read as those do who read such files."""
    if form == "searchable-pdf":
        with pypdfium2.PdfDocument(data) as document:
            return [word for page in document for word in page.get_textpage().get_text_range().split()]
    text = data.decode()
    if form == "csv":
        return [word for row in csv.DictReader(io.StringIO(text)) for word in row["text"].split()]
    if form in ("hocr", "alto"):
        root = ET.fromstring(text.partition("?>")[2].strip())
        found = [item.get("CONTENT") or (item.text if item.get("class") == "ocrx_word" else "") for item in root.iter()]
        return [word for item in found for word in (item or "").split()]
    return text.replace("\\", "").split()


@pytest.mark.parametrize("form", FORMATS)
def test_one_source_on_standard_output(form: str, up: Any, samples: Path) -> None:
    done = run(up, samples / "page.png", "--format", form)
    assert done.returncode == 0, done.stderr.decode()
    words = words_of(form, done.stdout)
    assert words.index("Region-based") < words.index("segmentation")
    assert len(words) >= 40


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_for_each_source(form: str, up: Any, samples: Path, tmp_path: Path) -> None:
    done = run(
        up, samples / "page.png", samples / "notes.txt", samples / "bus.jpg", "--format", form, "--out", tmp_path
    )
    assert done.returncode == 1, "one of them is no image"
    assert done.stdout == b""
    said = done.stderr.decode()
    assert f"{samples / 'notes.txt'}: " in said
    assert "documents are in" in said
    suffix = FORMATS[form]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"bus.{suffix}", f"page.{suffix}"]
    assert "segmentation" in words_of(form, (tmp_path / f"page.{suffix}").read_bytes())


def test_text_is_in_lines(up: Any, samples: Path) -> None:
    done = run(up, samples / "page.png", "--format", "text")
    lines = done.stdout.decode().splitlines()
    assert any(line.startswith("Region-based segmentation") for line in lines)
    assert len(lines) < 25, "words that stand side by side are a line"


def test_several_sources_in_a_stream(up: Any, samples: Path) -> None:
    two = (samples / "page.png", samples / "bus.jpg")
    assert run(up, *two, "--format", "text").stdout.decode().count("\f") == 1
    assert run(up, *two, "--format", "markdown").stdout.decode().count("## ") == 2
    rows = list(csv.DictReader(io.StringIO(run(up, *two, "--format", "csv").stdout.decode())))
    assert {row["source"] for row in rows} == set(map(str, two))
    lines = run(up, *two, "--format", "json").stdout.splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["ok", "ok"]


@pytest.mark.parametrize("form", ["hocr", "alto", "searchable-pdf"])
def test_several_documents_need_a_folder(form: str, up: Any, samples: Path) -> None:
    done = run(up, samples / "page.png", samples / "bus.jpg", "--format", form)
    assert done.returncode == 2
    assert b"name a folder with --out" in done.stderr


def test_a_terminal_is_no_place_for_a_pdf(up: Any, samples: Path) -> None:
    done = type_command(["run", samples / "page.png", "--format", "searchable-pdf", "--address", up.address])
    assert done.code == 2
    assert "nothing for a terminal" in plain(done.terminal)


def test_json_is_one_format(up: Any, samples: Path) -> None:
    done = run(up, samples / "page.png", "--json", "--format", "csv")
    assert done.returncode == 2
    assert b"--json is --format json" in done.stderr


def test_a_full_disk_ends_it(up: Any, samples: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = type_command(["run", samples / "page.png", "--format", "text", "--address", up.address], stdout=full)
    assert done.code == 3
    assert "No space left on device" in plain(done.terminal)


def test_a_document_never_replaces_a_source(up: Any, copy_samples: Path) -> None:
    (copy_samples / "page.png").rename(copy_samples / "page.txt")
    done = run(up, copy_samples / "page.txt", "--format", "text", "--out", copy_samples)
    assert done.returncode == 0, done.stderr.decode()
    assert (copy_samples / "page.txt").read_bytes().startswith(b"\x89PNG")
    assert "segmentation" in (copy_samples / "page-annotated.txt").read_text()
