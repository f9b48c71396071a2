"""Results as text, Markdown, CSV, hOCR, ALTO and searchable PDF, read back by those who read such files."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from xml.etree import ElementTree as ET

import pypdfium2
import pytest
from PIL import Image

from sluiceway import errors
from sluiceway.client import Block, Box, Line, Page, Reading, Region, Result
from sluiceway.formats import layout_of, to_alto, to_csv, to_hocr, to_markdown, to_searchable_pdf, to_text
from sluiceway.formats.markup import ALTO_NAMESPACE

PAGE = Page(200, 100)


def word(
    number: int, text: str | None, box: tuple[float, float, float, float], *, page: int = 0, **more: object
) -> Region:
    place = Box(*box)
    readings = () if text is None else (Reading("tiny", text, 0.9, step="words"),)
    outline = more.pop("outline", place.corners)
    return Region(number, place, "textline", 0, 0.8, outline, readings, "text", page=page)  # type: ignore[arg-type]


# Two lines side by side and one below, as a detector of words gives them.
WORDS = (
    word(0, "Hello", (10, 10, 60, 30)),
    word(1, "wörld", (70, 11, 120, 31)),
    word(2, None, (150, 10, 190, 30)),
    word(3, "1. <b>*bold*</b> & 日本 \U0001f600", (10, 50, 180, 70)),
)
PLAIN = Result("scan & co.png", (PAGE,), WORDS)
NAMED = Result(
    "scan.png",
    (PAGE, Page(200, 100, 1)),
    (*WORDS, word(4, "second", (5, 5, 60, 25), page=1)),
    lines=(Line((3,)), Line((1, 0)), Line((4,), 1)),
    blocks=(Block((1,)), Block((0,)), Block((2,), 1)),
)
EMPTY = Result("blank.png", (PAGE,))


def test_lines_come_from_where_words_stand_and_where_the_server_says_so() -> None:
    [page] = layout_of(PLAIN)
    assert [[line.text for line in block.lines] for block in page.blocks] == [["Hello wörld", WORDS[3].text]]
    assert page.blocks[0].lines[0].box == (10, 10, 120, 31)
    first, second = layout_of(NAMED)
    assert [[line.text for line in block.lines] for block in first.blocks] == [["wörld Hello"], [WORDS[3].text]]
    assert second.blocks[0].lines[0].text == "second"


def test_what_no_line_and_no_block_has_is_not_lost() -> None:
    partly = Result("a", (PAGE,), WORDS, lines=(Line((0,)), Line((3,))), blocks=(Block((0,)),))
    [page] = layout_of(partly)
    assert [[line.text for line in block.lines] for block in page.blocks] == [["Hello"], [WORDS[3].text, "wörld"]]


def test_text() -> None:
    assert to_text(PLAIN) == f"Hello wörld\n{WORDS[3].text}\n"
    assert to_text(NAMED) == f"wörld Hello\n\n{WORDS[3].text}\n\fsecond\n"
    assert to_text(EMPTY) == "\n"


def test_markdown_says_nothing_but_the_text() -> None:
    shown = to_markdown(NAMED)
    assert shown.startswith("## scan.png\n\nwörld Hello\n\n")
    assert r"1\. \<b\>\*bold\*\</b\> & 日本" in shown
    assert "\n\n---\n\nsecond\n" in shown
    assert to_markdown(Result("a", (PAGE,), (word(0, "- not a list", (0, 0, 9, 9)),))).endswith("\n\\- not a list\n\n")


def test_csv_has_a_row_for_each_region() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(NAMED))))
    assert [row["text"] for row in rows] == ["Hello", "wörld", "", WORDS[3].text, "second"]
    assert (rows[1]["x0"], rows[1]["class"], rows[1]["text_confidence"]) == ("70", "textline", "0.9")
    assert [row["page"] for row in rows] == ["0"] * 4 + ["1"]
    assert to_csv(EMPTY, header=False) == ""


def test_hocr() -> None:
    root = ET.fromstring(to_hocr(PLAIN).partition("?>")[2].strip())
    found = {kind: [item for item in root.iter() if item.get("class") == kind] for kind in (
        "ocr_page", "ocr_carea", "ocr_line", "ocrx_word"
    )}  # fmt: skip
    assert [len(items) for items in found.values()] == [1, 1, 2, 3]
    assert found["ocr_page"][0].get("title") == 'image "scan & co.png"; bbox 0 0 200 100; ppageno 0'
    assert found["ocrx_word"][0].get("title") == "bbox 10 10 60 30; x_wconf 90"
    assert found["ocrx_word"][2].text == WORDS[3].text
    assert found["ocr_line"][0].get("title") == "bbox 10 10 120 31"
    keys = [item.get("id") for item in root.iter() if item.get("id")]
    assert len(keys) == len(set(keys))


def test_alto() -> None:
    root = ET.fromstring(to_alto(NAMED))
    name = {"a": ALTO_NAMESPACE}
    assert root.findtext("a:Description/a:MeasurementUnit", namespaces=name) == "pixel"
    pages = root.findall("a:Layout/a:Page", name)
    assert [(page.get("WIDTH"), page.get("PHYSICAL_IMG_NR")) for page in pages] == [("200", "1"), ("200", "2")]
    lines = pages[0].findall(".//a:TextLine", name)
    assert [[item.get("CONTENT") for item in line.findall("a:String", name)] for line in lines] == [
        ["wörld", "Hello"],
        [WORDS[3].text],
    ]
    first = lines[0].find("a:String", name)
    assert first is not None
    assert [first.get(key) for key in ("HPOS", "VPOS", "WIDTH", "HEIGHT", "WC")] == ["70", "11", "50", "20", "0.900"]
    keys = [item.get("ID") for item in root.iter() if item.get("ID")]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("write", [to_hocr, to_alto])
def test_what_xml_cannot_hold_is_replaced(write: object) -> None:
    odd = Result("a\x00\udcff.png", (PAGE,), (word(0, "a\x07b\ud800", (0, 0, 9, 9)),))
    assert callable(write)
    written = write(odd)
    assert ET.fromstring(written.partition("?>")[2].strip()) is not None
    assert "a\ufffdb\ufffd" in written


# --- PDF --------------------------------------------------------------------------------------------------------------


def picture(kind: str, size: tuple[int, int] = (200, 100), **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (250, 200, 150)).save(file, format=kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def read(data: bytes) -> list[tuple[str, tuple[float, float]]]:
    with pypdfium2.PdfDocument(data) as document:
        return [(page.get_textpage().get_text_range(), page.get_size()) for page in document]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_pdf_shows_the_image_and_holds_the_text(kind: str, tmp_path: Path) -> None:
    (tmp_path / "scan").write_bytes(picture(kind))
    data = to_searchable_pdf(PLAIN, tmp_path / "scan")
    [(text, size)] = read(data)
    assert text.split() == f"Hello wörld {WORDS[3].text}".split()
    assert size == pytest.approx((150, 75), abs=0.1), "96 dots an inch where nobody says more"
    with pypdfium2.PdfDocument(data) as document:
        shown = document[0].render(scale=200 / 150).to_pil().convert("RGB")
    assert shown.getpixel((100, 60)) == pytest.approx((250, 200, 150), abs=3), "the text is not painted"


def test_words_stand_where_they_are_read() -> None:
    data = to_searchable_pdf(PLAIN, picture("PNG", dpi=(72, 72)))
    with pypdfium2.PdfDocument(data) as document:
        page = document[0].get_textpage()
        found = page.search("wörld").get_next()
        assert found is not None
        left, _, _, _ = page.get_charbox(found[0], loose=True)
        _, bottom, right, top = page.get_charbox(found[0] + found[1] - 1, loose=True)
    assert (left, right) == pytest.approx((70, 120), abs=1.5)
    assert (100 - top, 100 - bottom) == pytest.approx((11, 31), abs=6)


def test_a_turned_word_is_turned() -> None:
    """A quarter to the left: it begins at the bottom and ends at the top."""
    up = word(0, "upwards", (50, 20, 70, 90), outline=((50, 90), (50, 20), (70, 20), (70, 90)))
    data = to_searchable_pdf(Result("a", (PAGE,), (up,)), picture("PNG", dpi=(72, 72)))
    with pypdfium2.PdfDocument(data) as document:
        page = document[0].get_textpage()
        assert page.get_text_range().strip() == "upwards"
        left, bottom, right, top = page.get_rect(0) if page.count_rects() else (0, 0, 0, 0)
    assert (left, 100 - top, right, 100 - bottom) == pytest.approx((50, 20, 70, 90), abs=12)


def test_a_photograph_that_is_turned_by_exif_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = to_searchable_pdf(
        Result("a", (Page(100, 200),), (word(0, "up", (5, 5, 50, 30)),)), picture("JPEG", exif=exif)
    )
    [(text, size)] = read(data)
    assert text.split() == ["up"]
    assert size[1] == pytest.approx(2 * size[0])


def test_every_page_of_a_document() -> None:
    file = io.BytesIO()
    frames = [Image.new("L", (200, 100), shade) for shade in (255, 128)]
    frames[0].save(file, format="TIFF", save_all=True, append_images=frames[1:])
    assert [text.split()[-1] for text, _ in read(to_searchable_pdf(NAMED, file.getvalue()))] == ["\U0001f600", "second"]


@pytest.mark.parametrize("data", [b"%PDF-1.7\n", b"no image"])
def test_what_no_pdf_can_be_made_of(data: bytes) -> None:
    with pytest.raises(errors.InvalidInput):
        to_searchable_pdf(PLAIN, data)
