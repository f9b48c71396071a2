"""hOCR 1.2 and ALTO 4: where each word stands, for programs that show or search scans."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from sluiceway.client.regions import Box, Region
from sluiceway.client.results import Result
from sluiceway.formats.layout import Block, Line, PageLayout, layout_of

__all__ = ["ALTO_NAMESPACE", "to_alto", "to_hocr"]

ALTO_NAMESPACE = "http://www.loc.gov/standards/alto/ns-v4#"
_ALTO_SCHEMA = "http://www.loc.gov/standards/alto/v4/alto-4-4.xsd"
_XHTML = "http://www.w3.org/1999/xhtml"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
# What XML cannot hold: control characters, halves of letters.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_hocr(result: Result) -> str:
    """Write hOCR: XHTML with a box for each page, block, line and word, in pixels, and confidences in percent."""
    root = ET.Element("html", {"xmlns": _XHTML, "xml:lang": "und", "lang": "und"})
    head = ET.SubElement(root, "head")
    ET.SubElement(head, "title").text = _clean(result.source)
    ET.SubElement(head, "meta", {"charset": "utf-8"})
    ET.SubElement(head, "meta", {"name": "ocr-system", "content": "sluiceway"})
    capabilities = "ocr_page ocr_carea ocr_line ocrx_word"
    ET.SubElement(head, "meta", {"name": "ocr-capabilities", "content": capabilities})
    body = ET.SubElement(root, "body")
    for page in layout_of(result):
        _hocr_page(body, page, result.source)
    ET.indent(root)
    doctype = '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "xhtml1-transitional.dtd">'
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{doctype}\n{ET.tostring(root, encoding="unicode")}\n'


def _hocr_page(body: ET.Element, layout: PageLayout, source: str) -> None:
    page, number = layout.page, layout.page.index
    name = _clean(source).replace('"', "'")
    title = f'image "{name}"; bbox 0 0 {page.width} {page.height}; ppageno {number}'
    place = ET.SubElement(body, "div", {"class": "ocr_page", "id": f"page_{number + 1}", "title": title})
    for index, block in enumerate(layout.blocks, 1):
        key = f"{number + 1}_{index}"
        area = _hocr(place, "div", "ocr_carea", f"block_{key}", f"bbox {_hocr_box(block.box)}")
        for line_index, line in enumerate(block.lines, 1):
            row = _hocr(area, "span", "ocr_line", f"line_{key}_{line_index}", f"bbox {_hocr_box(line.box)}")
            for word in line.words:
                sure = f"; x_wconf {round(100 * (word.text_confidence or 0))}"
                title = f"bbox {_hocr_box(word.box)}{sure}"
                item = _hocr(row, "span", "ocrx_word", f"word_{number + 1}_{word.id}", title)
                item.text = _clean(word.text or "")


def _hocr(parent: ET.Element, tag: str, kind: str, key: str, title: str) -> ET.Element:
    return ET.SubElement(parent, tag, {"class": kind, "id": key, "title": title})


def _hocr_box(box: Box) -> str:
    return " ".join(str(max(0, round(value))) for value in box)


def to_alto(result: Result) -> str:
    """Write ALTO 4.4, in pixels; `WC` is the confidence of a word, from 0 to 1."""
    ET.register_namespace("", ALTO_NAMESPACE)
    ET.register_namespace("xsi", _XSI)
    root = ET.Element(_alto("alto"), {f"{{{_XSI}}}schemaLocation": f"{ALTO_NAMESPACE} {_ALTO_SCHEMA}"})
    description = ET.SubElement(root, _alto("Description"))
    ET.SubElement(description, _alto("MeasurementUnit")).text = "pixel"
    information = ET.SubElement(description, _alto("sourceImageInformation"))
    ET.SubElement(information, _alto("fileName")).text = _clean(result.source)
    processing = ET.SubElement(description, _alto("Processing"), {"ID": "processing"})
    software = ET.SubElement(processing, _alto("processingSoftware"))
    ET.SubElement(software, _alto("softwareName")).text = "sluiceway"
    layout = ET.SubElement(root, _alto("Layout"))
    for page in layout_of(result):
        _alto_page(layout, page)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _alto_page(parent: ET.Element, layout: PageLayout) -> None:
    page, number = layout.page, layout.page.index + 1
    size = {"WIDTH": str(page.width), "HEIGHT": str(page.height)}
    element = ET.SubElement(parent, _alto("Page"), {"ID": f"page_{number}", "PHYSICAL_IMG_NR": str(number), **size})
    space = ET.SubElement(element, _alto("PrintSpace"), {"HPOS": "0", "VPOS": "0", **size})
    for index, block in enumerate(layout.blocks, 1):
        _alto_block(space, block, f"{number}_{index}")


def _alto_block(parent: ET.Element, block: Block, key: str) -> None:
    element = ET.SubElement(parent, _alto("TextBlock"), {"ID": f"block_{key}", **_alto_box(block.box)})
    for index, line in enumerate(block.lines, 1):
        row = ET.SubElement(element, _alto("TextLine"), {"ID": f"line_{key}_{index}", **_alto_box(line.box)})
        for tag, attributes in _alto_words(line, key):
            ET.SubElement(row, tag, attributes)


def _alto_words(line: Line, key: str) -> Iterator[tuple[str, dict[str, str]]]:
    before: Region | None = None
    for word in line.words:
        if before is not None:
            yield _alto("SP"), {"HPOS": f"{before.box.x1:.0f}", "VPOS": f"{before.box.y0:.0f}"}
        sure = f"{word.text_confidence or 0:.3f}"
        content = {"ID": f"word_{key}_{word.id}", "CONTENT": _clean(word.text or ""), "WC": sure}
        yield _alto("String"), {**content, **_alto_box(word.box)}
        before = word


def _alto(tag: str) -> str:
    return f"{{{ALTO_NAMESPACE}}}{tag}"


def _alto_box(box: Box) -> dict[str, str]:
    numbers = {"HPOS": box.x0, "VPOS": box.y0, "WIDTH": box.width, "HEIGHT": box.height}
    return {name: f"{max(0.0, value):.0f}" for name, value in numbers.items()}


def _clean(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
