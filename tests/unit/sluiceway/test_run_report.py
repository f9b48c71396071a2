"""What `run` gives out: the user's own files stay as they are, and every name can be shown."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from sluiceway import errors
from sluiceway.cli.inputs import find_inputs
from sluiceway.cli.report import Report
from sluiceway.client import Box, Notice, Page, Reading, Region, Result

# What Python makes of a file name in Latin-1: the byte FC has no meaning in UTF-8.
NOT_UTF8 = os.fsdecode(b"M\xfcnchen.jpg")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a photograph and a folder of scans."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    for name in ("photo.jpg", "scans/photo.jpg", "scans/page.png"):
        Image.new("RGB", (40, 30), "white").save(tmp_path / name)
    return tmp_path


def give_out(arguments: list[str], out: str) -> set[str]:
    """Report every input as read; returns the files that are new."""
    before = {path for path in Path.cwd().rglob("*") if path.is_file()}
    contents = {path: path.read_bytes() for path in before}
    inputs = find_inputs(arguments)
    report = Report(as_json=True, out=Path(out), inputs=inputs)
    for item in inputs:
        report.add(Result(item.name, (Page(40, 30),)), item)
    assert {path: path.read_bytes() for path in before} == contents, "the user's files are as they were"
    new = {path for path in Path.cwd().rglob("*") if path.is_file()} - before
    return {str(path.relative_to(Path.cwd())) for path in new}


@pytest.mark.parametrize(
    ("arguments", "out", "new"),
    [
        (["photo.jpg"], ".", {"photo-annotated.jpg"}),
        (["./photo.jpg"], "scans/..", {"scans/../photo-annotated.jpg"}),
        (["scans/"], "scans", {"scans/photo-annotated.jpg", "scans/page-annotated.png"}),
        (["photo.jpg", "scans/photo.jpg"], "scans", {"scans/photo-annotated.jpg", "scans/photo-annotated-2.jpg"}),
        (["scans/photo.jpg"], ".", set()),
    ],
)
def test_a_picture_never_replaces_an_input(arguments: list[str], out: str, new: set[str], folder: Path) -> None:
    if not new:
        # Not an input: what an earlier run wrote is written anew.
        (folder / "photo.jpg").unlink()
        new = {"photo.jpg"}
    assert give_out(arguments, out) == {os.path.normpath(name) for name in new}


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_another_name_of_an_input_is_the_input(link: object, folder: Path) -> None:
    (folder / "out").mkdir()
    assert callable(link)
    link(folder / "photo.jpg", folder / "out" / "photo.jpg")
    assert give_out(["photo.jpg"], "out") == {"out/photo-annotated.jpg"}


def test_an_annotated_picture_that_is_an_input_stays_too(folder: Path) -> None:
    (folder / "photo-annotated.jpg").write_bytes((folder / "photo.jpg").read_bytes())
    assert give_out(["photo.jpg", "photo-annotated.jpg"], ".") == {
        "photo-annotated-2.jpg",
        "photo-annotated-annotated.jpg",
    }


def test_an_input_that_cannot_be_a_file_is_in_nobodys_way(folder: Path) -> None:
    inputs = find_inputs(["missing.jpg", "https://example.org/sign.jpg", "api:x?t=" + "y" * 300, "photo.jpg"])
    report = Report(as_json=True, out=folder / "scans", inputs=inputs)
    report.add(Result("photo.jpg", (Page(40, 30),)), inputs[-1])
    assert (folder / "scans" / "photo.jpg").is_file()


@pytest.mark.parametrize("as_json", [True, False])
def test_a_name_that_is_not_utf8_is_shown_and_survives_in_json(
    as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = find_inputs([NOT_UTF8])
    report = Report(as_json=as_json, out=None, inputs=inputs)
    report.add(Result(NOT_UTF8, (Page(40, 30),)), inputs[0])
    report.add(Result(NOT_UTF8, error=errors.InvalidImage(f"cannot read {NOT_UTF8}: gone")), inputs[0])
    good, bad = capsys.readouterr().out.splitlines()
    if as_json:
        assert "\\udcfc" in good
        assert os.fsencode(json.loads(good)["source"]) == b"M\xfcnchen.jpg"
        assert json.loads(bad)["error"]["message"] == f"cannot read {NOT_UTF8}: gone"
    else:
        assert good.startswith("M\ufffdnchen.jpg")
        assert "cannot read M\ufffdnchen.jpg: gone" in bad


def test_a_picture_that_cannot_be_written_is_told_and_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "scans" / "page.png").unlink()
    (folder / "scans" / "page.png").mkdir()
    Image.new("RGB", (40, 30)).save(folder / "page.png")
    inputs = find_inputs(["photo.jpg", "page.png"])
    report = Report(as_json=True, out=folder / "scans", inputs=inputs)
    for item in inputs:
        report.add(Result(item.name, (Page(40, 30),)), item)
    report.close()
    assert (report.succeeded, report.unwritten) == (2, 1)
    said = capsys.readouterr().err
    assert "page.png: Is a directory" in said
    assert "1 annotated pictures could not be written" in said


def test_a_picture_that_pillow_does_not_read_ends_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Servers read it: a comment of three megabytes is none of their business."""
    extra = PngImagePlugin.PngInfo()
    extra.add_text("Comment", "x" * 3_000_000, zip=True)
    Image.new("RGB", (40, 30)).save(folder / "talkative.png", pnginfo=extra)
    inputs = find_inputs(["talkative.png", "photo.jpg"])
    report = Report(as_json=True, out=folder / "scans", inputs=inputs)
    for item in inputs:
        report.add(Result(item.name, (Page(40, 30),)), item)
    assert (report.succeeded, report.unwritten) == (2, 1)
    assert "talkative.png: Decompressed data too large" in capsys.readouterr().err


def test_of_documents_pages_that_failed_are_told_and_nothing_is_drawn(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "deed.pdf").write_bytes(b"%PDF-1.7\n")
    failed = Reading("", error=errors.InvalidImage("the page is damaged"), step="text")
    inputs = find_inputs(["deed.pdf", "photo.jpg"])
    report = Report(as_json=False, out=folder / "scans", inputs=inputs)
    report.add(Result("deed.pdf", (Page(40, 30),), page_values={2: {"text": failed}}), inputs[0])
    report.add(Result("photo.jpg", (Page(40, 30), Page(40, 30, 1))), inputs[1])
    told = capsys.readouterr()
    assert "page 3: the page is damaged" in told.out
    assert told.err.count("no annotated pictures of documents") == 2
    assert {path.name for path in (folder / "scans").iterdir()} == {"photo.jpg", "page.png"}
    assert (report.succeeded, report.unwritten) == (2, 0)


def test_people_see_a_tree(capsys: pytest.CaptureFixture[str]) -> None:
    def region(number: int, parent: int | None, *readings: Reading) -> Region:
        box = Box(0, 0, 9, 9)
        return Region(number, box, f"class{number}", 0, 0.9, box.corners, readings, "step", parent)

    regions = (
        region(0, None),
        region(1, 0, Reading("tiny", "K-AB 1", 0.9, step="number")),
        region(2, 1, Reading("", step="owner", data={"name": "Köln"})),
        region(3, None, Reading("tiny", "EXIT", 0.9)),
    )
    result = Result(
        "a.jpg", (Page(40, 30), Page(40, 30, 1)), regions,
        values={"book": {"id": 7}}, value_errors={"mail": errors.UpstreamFailed("gone")},
        notices=(Notice("REGIONS_TRUNCATED", "too many regions"),),
    )  # fmt: skip
    inputs = find_inputs(["a.jpg"])
    Report(as_json=False, out=None, inputs=inputs).add(result, inputs[0])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a.jpg  2 pages, 40 x 30, 4 regions, 0 ms"
    assert lines[1:4] == ['book: {"id": 7}', "mail: gone", "too many regions"]
    rows = {line.split("class")[1][0]: line for line in lines[5:] if "class" in line}
    starts = {number: len(row) - len(row.lstrip()) for number, row in rows.items()}
    assert starts == {"0": 0, "1": 2, "2": 4, "3": 0}
    assert rows["2"].lstrip().startswith('{"owner": {"name": "Köln"}}')
