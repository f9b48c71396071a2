"""Pages of documents as pixels, and everything that must be refused."""

import io
import threading
import time
from typing import Any

import numpy as np
import pytest
from pdf_files import A4_PT, pdf_of, pdf_of_pictures
from PIL import Image
from sluiceway_runtime.documents import pdf as pdf_module
from sluiceway_runtime.documents.kind import is_document, is_pdf
from sluiceway_runtime.documents.limits import DocumentLimits
from sluiceway_runtime.documents.pages import PAGE_COUNT, read_page
from sluiceway_runtime.documents.text_lines import TextLine, joined
from sluiceway_runtime.errors import ImageTooLarge, InvalidImage, InvalidOption, SluicewayError
from sluiceway_runtime.images.limits import ImageLimits

IMAGES, LIMITS = ImageLimits(), DocumentLimits()


def picture(level: int, size: tuple[int, int] = (60, 40)) -> Image.Image:
    return Image.new("RGB", size, (level, 10, 200))


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(levels: list[int]) -> bytes:
    first, *others = (picture(level, (60 + level, 40)) for level in levels)
    return encode(first, "tiff", save_all=True, append_images=others, compression="tiff_lzw")


def test_which_files_are_documents() -> None:
    pdf = pdf_of(["a"])
    assert is_document(pdf)
    assert is_document(memoryview(b"\n\xef\xbb\xbf" + pdf))
    assert is_document(tiff([1, 2]))
    png = encode(picture(1), "png")
    for data in (tiff([1]), png, encode(picture(1), "jpeg"), b"", b"%PD", b"%!PS-Adobe", tiff([1, 2])[:9]):
        assert not is_document(data)
    # What begins as an image is one, whatever follows.
    assert not is_document(png + pdf)
    assert not is_pdf(b"x" * 2000 + pdf)
    thumbnail = encode(picture(1), "tiff", save_all=True, append_images=[picture(2)], tiffinfo={254: 1})
    assert not is_document(thumbnail)


def test_a_pdf_page_by_page() -> None:
    data = pdf_of(["one", "two\nlines", "three"])
    for number in range(3):
        page = read_page(memoryview(data), number, IMAGES, LIMITS)
        assert page.page_count == 3
        assert page.image.pixels.shape == (2338, 1652, 3)
        assert page.image.pixels.flags.c_contiguous
        assert page.image.pixels.min() < 50
        assert page.image.pixels[0, 0].tolist() == [255, 255, 255]
    first, second = (read_page(data, number, IMAGES, LIMITS).image.pixels for number in (0, 1))
    assert (first < 128).sum() < (second < 128).sum()


def test_resolution_is_as_configured_and_less_where_it_is_too_much() -> None:
    data = pdf_of(["one"])
    assert read_page(data, 0, IMAGES, DocumentLimits(dpi=72)).image.pixels.shape == (842, 595, 3)
    small = read_page(data, 0, ImageLimits(max_pixels=100_000), LIMITS).image.pixels
    assert 90_000 < small.shape[0] * small.shape[1] <= 100_000
    poster = read_page(pdf_of(["one"], size_pt=(14_000, 14_000)), 0, ImageLimits(max_pixels=10**6), LIMITS)
    assert 900_000 < poster.image.pixels[:, :, 0].size <= 10**6


def test_a_scan_has_the_pixels_that_were_scanned() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)
    scan = Image.fromarray(noise).resize((400, 600))
    data = pdf_of_pictures([encode(scan, "jpeg", quality=95)], [scan.size])
    pixels = read_page(data, 0, IMAGES, LIMITS).image.pixels
    assert np.abs(pixels.astype(int) - np.asarray(scan)[:, :, ::-1]).mean() < 6


def test_a_tiff_page_by_page() -> None:
    data = tiff([10, 20, 30])
    for number in range(3):
        page = read_page(data, number, IMAGES, LIMITS)
        assert page.page_count == 3
        assert page.image.pixels.shape == (40, 60 + 10 * (number + 1), 3)
        assert (page.image.pixels == (200, 10, 10 * (number + 1))).all()


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif"])
def test_an_image_is_a_document_of_one_page(kind: str) -> None:
    page = read_page(encode(picture(10), kind), 0, IMAGES, LIMITS)
    assert (page.page_count, page.image.pixels.shape) == (1, (40, 60, 3))
    with pytest.raises(InvalidOption):
        read_page(encode(picture(10), kind), 1, IMAGES, LIMITS)


def fault_of(data: bytes, number: int = 0, images: ImageLimits = IMAGES, limits: DocumentLimits = LIMITS) -> Any:
    with pytest.raises(SluicewayError) as caught:
        read_page(data, number, images, limits)
    return caught.value


@pytest.mark.parametrize("data", [pdf_of(["a", "b"]), tiff([1, 2])], ids=["pdf", "tiff"])
def test_a_page_that_is_not_there_is_said_with_how_many_there_are(data: bytes) -> None:
    fault = fault_of(data, 2)
    assert isinstance(fault, InvalidOption)
    assert fault.metadata[PAGE_COUNT] == "2"


def test_a_damaged_page_fails_alone() -> None:
    data = pdf_of(["a", "b", "c"], damaged={1})
    fault = fault_of(data, 1)
    assert isinstance(fault, InvalidImage)
    assert fault.metadata[PAGE_COUNT] == "3"
    for number in (0, 2):
        assert read_page(data, number, IMAGES, LIMITS).page_count == 3
    scan = bytearray(tiff([10, 20, 30]))
    with Image.open(io.BytesIO(bytes(scan))) as image:
        image.seek(1)
        start, size = image.tag_v2[273][0], image.tag_v2[279][0]
    scan[start : start + size] = b"\xff" * size
    assert fault_of(bytes(scan), 1).metadata[PAGE_COUNT] == "3"
    assert read_page(bytes(scan), 2, IMAGES, LIMITS).page_count == 3


def test_documents_are_refused_in_words() -> None:
    encrypted = fault_of(pdf_of(["a"], password="secret"))
    assert (type(encrypted), PAGE_COUNT in encrypted.metadata) == (InvalidImage, False)
    assert "encrypted" in encrypted.message
    assert "damaged" in fault_of(pdf_of(["a"])[:200]).message
    assert "damaged" in fault_of(b"%PDF-1.7\n" + bytes(500)).message
    many = fault_of(pdf_of(["a"] * 4), limits=DocumentLimits(max_pages=3))
    assert (type(many), many.metadata) == (ImageTooLarge, {"limit": "max_document_pages", "max": "3"})
    many = fault_of(tiff([1, 2, 3, 4]), limits=DocumentLimits(max_pages=3))
    assert (type(many), many.metadata["limit"]) == (ImageTooLarge, "max_document_pages")
    assert isinstance(fault_of(pdf_of(["a"]), images=ImageLimits(max_bytes=100)), ImageTooLarge)


def test_a_page_of_a_tiff_over_the_limit_of_pixels_fails_alone() -> None:
    data = tiff([10, 20])
    limits = ImageLimits(max_pixels=40 * 70)
    assert read_page(data, 0, limits, LIMITS).page_count == 2
    fault = fault_of(data, 1, limits)
    assert (type(fault), fault.metadata[PAGE_COUNT]) == (ImageTooLarge, "2")


def test_a_page_that_takes_too_long_is_given_up() -> None:
    data = pdf_of(["quick", "slow"], slow={1})
    limits = DocumentLimits(page_timeout_s=0.2)
    begun_s = time.monotonic()
    fault = fault_of(data, 1, limits=limits)
    assert (type(fault), fault.metadata["limit"], fault.metadata[PAGE_COUNT]) == (ImageTooLarge, "page_timeout_s", "2")
    # Far less than it would have taken, however busy the machine is.
    assert time.monotonic() - begun_s < 30


def test_text_that_a_page_holds() -> None:
    data = pdf_of(["first line\nsecond line", ""])
    page = read_page(data, 0, IMAGES, LIMITS, prefers_text=True)
    assert [line.text for line in page.lines] == ["first line", "second line"]
    assert page.image.pixels.shape[:2] == (2338, 1652)
    # Where it stands, in the pixels of the page as it is rendered.
    dark = (read_page(data, 0, IMAGES, LIMITS).image.pixels < 128).all(axis=2)
    for line in page.lines:
        x0, y0, x1, y1 = (round(edge) for edge in line.box_xyxy_px)
        inside = dark[y0 : y1 + 1, x0 : x1 + 1].sum()
        assert inside > 500
        dark[y0 - 2 : y1 + 3, x0 - 2 : x1 + 3] = False
    assert dark.sum() == 0
    # One without is rendered, and so is a TIFF.
    for other, number in ((data, 1), (tiff([1, 2]), 1)):
        page = read_page(other, number, IMAGES, LIMITS, prefers_text=True)
        assert page.lines == ()
        assert page.image.pixels.shape[2] == 3
    assert fault_of(pdf_of(["a"], damaged={0})).metadata[PAGE_COUNT] == "1"


def test_pieces_of_a_line_are_joined() -> None:
    def piece(text: str, x0: float, x1: float, top: float = 10) -> TextLine:
        return TextLine((x0, top, x1, top + 10), text)

    pieces = [piece("Hel", 0, 20), piece("lo", 20.5, 30), piece("world", 34, 60), piece("far away", 90, 120)]
    below = [piece("next", 0, 20, top=24), piece(" ", 20, 22, top=24), piece("line ", 23, 40, top=25)]
    assert [line.text for line in joined(pieces + below)] == ["Hello world", "far away", "next line"]
    assert joined(below)[0].box_xyxy_px == (0, 24, 40, 35)
    assert joined([piece(" ", 0, 3)]) == []


def test_threads_take_turns_with_pdfium() -> None:
    data = pdf_of(["page"] * 4)
    expected = read_page(data, 0, IMAGES, DocumentLimits(dpi=72)).image.pixels
    wrong: list[int] = []

    def read(number: int) -> None:
        pages = (read_page(data, number, IMAGES, DocumentLimits(dpi=72)) for _ in range(5))
        wrong.extend(number for page in pages if not (page.image.pixels == expected).all())

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    # And one that cannot be opened leaves nothing locked.
    fault_of(b"%PDF-1.7\n" + bytes(500))
    assert not pdf_module._lock.locked()


def test_the_page_size_is_that_of_the_page_as_people_see_it() -> None:
    import pikepdf

    pdf = pikepdf.open(io.BytesIO(pdf_of(["turned"])))
    pdf.pages[0].Rotate = 90
    out = io.BytesIO()
    pdf.save(out)
    assert read_page(out.getvalue(), 0, IMAGES, DocumentLimits(dpi=72)).image.pixels.shape == (595, 842, 3)
    assert A4_PT == (595, 842)


@pytest.mark.parametrize("make", [lambda: pdf_of(["some text", "more"]), lambda: tiff([10, 20])], ids=["pdf", "tiff"])
def test_damaged_documents_raise_nothing_but_our_errors(make: Any) -> None:
    data = make()
    random = np.random.default_rng(3)
    limits = ImageLimits(max_pixels=10**6)
    for _ in range(150):
        broken = bytearray(data)
        for place in random.integers(0, len(data), 6):
            broken[place] = random.integers(0, 256)
        for number in (0, 1):
            try:
                assert read_page(bytes(broken), number, limits, DocumentLimits(dpi=36)).image.pixels.ndim == 3
            except SluicewayError:
                continue
