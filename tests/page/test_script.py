"""What the page makes of events that stages without models do not send: trees, several pages, values, late failures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from page_server import Background, Script
from selenium.webdriver.common.keys import Keys

DESCRIPTION = {
    "server_version": "test",
    "default_pipeline": "layout",
    "pipelines": [
        {"name": "layout", "steps": [{"name": "parts", "kind": "detect"}, {"name": "words", "kind": "recognize"}]},
        {"name": "parking", "steps": [{"name": "owner", "kind": "call", "params": ["place", "<b>day</b>"]}]},
    ],
}
MODEL = {"name": "reader", "version": "2", "weights_sha256": "ab" * 32}
JOB_DONE = {"job_done": {"succeeded": 1, "failed": 0}}
READY = {"source_ready": {"size_bytes": 10}}


def region(number: int, top: float, name: str = "Text", **more: Any) -> dict[str, Any]:
    box = {"x0": 10, "y0": top, "x1": 110, "y1": top + 20}
    return {"id": number, "class_name": name, "confidence": 0.5, "geometry": {"box": box}, **more}


def found(*regions: dict[str, Any], page: int = 0, step: str = "parts") -> dict[str, Any]:
    about = {"index": page, "width": 200, "height": 300}
    wanted = [item["id"] for item in regions if item["class_name"] == "Text"]
    return {"regions": {"page": about, "step": step, "regions": list(regions), "recognizing": wanted}}


def said(*values: dict[str, Any], subject: str = "REGION", page: int = 0, step: str = "words") -> dict[str, Any]:
    return {
        "values": {
            "step": step,
            "model": "reader",
            "page": page,
            "subject": f"SUBJECT_{subject}",
            "values": list(values),
        }
    }


def text(number: int, words: str, confidence: float = 0.75) -> dict[str, Any]:
    characters = [{"text": letter, "confidence": confidence} for letter in words]
    return {"region_id": number, "text": {"text": words, "confidence": confidence, "characters": characters}}


def done(*order: int, **more: Any) -> dict[str, Any]:
    steps = [{"step": "words", "models": [MODEL], "timings": {"queue_ms": 1, "compute_ms": 2, "total_ms": 4}}]
    return {"done": {"reading_order": list(order), "total_ms": 8, "steps": steps, **more}}


@pytest.fixture
def script(background: Background, browser: Browser) -> Callable[..., Script]:
    """Opens the page of a port that answers as it is told."""

    def start(*answers: Any) -> Script:
        made: Script = background.enter(lambda: Script(DESCRIPTION, answers))
        browser.driver.get(made.url)
        browser.until(lambda: browser.count("#pipeline option") == 2, "the server is not described")
        return made

    return start


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """A file that no browser draws."""
    file = tmp_path / "scan.tiff"
    file.write_bytes(b"II*\0 and so on")
    return file


def read(browser: Browser, file: Path, state: str = "done") -> None:
    before = browser.count(f"#sources li.{state}")
    browser.find("#files").send_keys(str(file))
    browser.until(lambda: browser.count(f"#sources li.{state}") == before + 1, f"not {state}")


def copied(browser: Browser, what: str) -> str:
    browser.run("navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }")
    browser.click(f"#copy-{what}")
    browser.until(lambda: browser.text("#copied") == "Copied.", "not copied")
    return str(browser.run("return window.copied"))


TREE = [
    READY,
    found(region(0, 100, "Table"), region(1, 10, "Title")),
    found(region(2, 104, parent_id=0), region(3, 130, parent_id=0), region(4, 12, parent_id=1), step="text"),
    said(text(4, "A *title*"), text(3, "low")),
    said({"region_id": 2, "error": {"code": 13, "reason": "MODEL_FAILED", "message": "the model raised"}}),
    done(1, 4, 0, 2, 3),
    JOB_DONE,
]


def test_regions_inside_regions_are_a_tree(browser: Browser, script: Callable[..., Script], document: Path) -> None:
    script(TREE)
    read(browser, document)
    browser.click("#tab-regions")
    browser.until(lambda: not browser.count(".tree .pending"), "something is waited for")
    rows = browser.run(
        "return [...document.querySelectorAll('[role=treeitem]')]"
        ".map((row) => [row.getAttribute('aria-level'), row.querySelector('.title').textContent])"
    )
    assert rows == [["1", "Title"], ["2", "A *title*"], ["1", "Table"], ["2", "failed"], ["2", "low"]]
    # Left folds what is below, right opens it again; a region that is chosen elsewhere is opened up to.
    browser.find("#region-0").send_keys(Keys.ARROW_LEFT)
    assert browser.find("#region-0").get_attribute("aria-expanded") == "false"
    assert not browser.find("#region-2").is_displayed()
    assert browser.find("#region-4").is_displayed()
    browser.find("#viewer [data-region='2'] polygon").click()
    assert browser.find("#region-2").is_displayed()
    assert "the model raised" in browser.text("#detail")
    browser.find("#region-2").send_keys(Keys.ARROW_LEFT)
    assert browser.text("#detail h2") == "Table"
    assert copied(browser, "markdown").splitlines() == [
        "## scan.tiff", "",
        "- **Title** (0.50)", "  - **Text** (0.50): A \\*title\\*",
        "- **Table** (0.50)", "  - **Text** (0.50)", "  - **Text** (0.50): low",
    ]  # fmt: skip
    assert copied(browser, "text") == "A *title*\n\nlow"
    plain = {item["id"]: item for item in json.loads(copied(browser, "json"))["regions"]}
    assert plain[2]["error"] == {"code": "INTERNAL", "reason": "MODEL_FAILED", "message": "the model raised"}
    assert plain[3]["parent"] == 0


def test_a_file_that_the_browser_cannot_draw_is_shown_as_paper(
    browser: Browser, script: Callable[..., Script], document: Path
) -> None:
    """With its pages, one at a time, and what was read where it stood."""
    script(
        [
            READY, found(region(0, 10)), found(region(1, 50), page=1),
            said(text(0, "first")), said(text(1, "second"), page=1),
            said({"text": {"text": "a letter", "confidence": 1}}, subject="PAGE"),
            done(0, 1), JOB_DONE,
        ]
    )  # fmt: skip
    read(browser, document)
    browser.until(lambda: browser.count(".sheet.paper"), "no paper")
    assert browser.find("#viewer [data-region='0'] text").is_displayed()
    assert browser.text("#page-number") == "1 of 2"
    browser.click("#page-after")
    browser.until(lambda: browser.count("#viewer [data-region='1']") == 1, "the second page is not drawn")
    assert browser.count("#viewer [data-region]") == 1
    assert "a letter" in browser.text("#panel-text .said")
    assert copied(browser, "text") == "first\n\nsecond"
    assert [item["page"] for item in json.loads(copied(browser, "json"))["regions"]] == [0, 1]


def test_turned_shapes_lines_labels_and_values(browser: Browser, script: Callable[..., Script], document: Path) -> None:
    turned = {"rotated_box": {"center": {"x": 100, "y": 100}, "width": 40, "height": 20, "angle_degrees": 90}}
    outline = {"polygon": {"points": [{"x": 0, "y": 0}, {"x": 30, "y": 0}, {"x": 15, "y": 30}]}}
    car = {"id": 2, "class_name": "car", "confidence": 0.9, "geometry": outline}
    script(
        [
            READY, found(region(0, 200), region(1, 100) | {"geometry": turned}, car),
            said(text(0, "two"), text(1, "one")),
            said({"region_id": 2, "classification": {"labels": [{"class_name": "van", "confidence": 0.6}]}}),
            said({"region_id": 2, "data": {"owner": "<i>A</i>"}}, step="owner"),
            said({"data": {"free": 3}}, subject="SOURCE", step="book"),
            done(1, 0, 2, lines=[{"region_ids": [1, 0]}], blocks=[{"lines": [0]}], notices=[{"message": "cut off"}]),
            JOB_DONE,
        ]
    )  # fmt: skip
    read(browser, document)
    assert copied(browser, "text") == "one two"
    plain = json.loads(copied(browser, "json"))
    regions = {item["id"]: item for item in plain["regions"]}
    assert regions[1]["box"] == [90, 80, 110, 120]
    assert regions[1]["outline"] == [[110, 80], [110, 120], [90, 120], [90, 80]]
    assert regions[2]["labels"] == [{"class": "van", "confidence": 0.6}]
    assert regions[2]["values"] == {"owner": {"owner": "<i>A</i>"}}
    assert plain["values"] == {"book": {"free": 3}}
    assert plain["lines"] == [{"regions": [1, 0], "text": "one two", "page": 0}]
    assert "van" in copied(browser, "markdown")
    assert "> cut off" in copied(browser, "markdown")
    browser.find("#viewer [data-region='2'] polygon").click()
    # What servers say is text and nothing else.
    assert '{"owner":"<i>A</i>"}' in browser.text("#detail")
    assert browser.count("#detail i:not(.meter i)") == 0
    browser.click("#tab-steps")
    assert "reader 2" in browser.text("#panel-steps")
    assert "cut off" in browser.text("#panel-steps .notices")
    assert "words: 1.0 ms waiting, 2.0 ms computing, 4.0 ms in all" in browser.text("#panel-steps")


def problem(reason: str, **more: Any) -> dict[str, Any]:
    return {"detail": "in the server's words", "reason": reason, "code": "X", "request_id": "r-17", **more}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((413, problem("IMAGE_TOO_LARGE")), "larger than the server takes"),
        ((503, problem("UNAVAILABLE")), "Try again in a moment"),
        ((504, problem("DEADLINE_EXCEEDED")), "The time ran out"),
        ((400, problem("SOMETHING_NEW")), "The server refused this."),
        ((502, {}), "Something went wrong"),
        ([READY, found(region(0, 10)), {"problem": problem("INTERNAL")}], "The server failed."),
        ([READY, found(region(0, 10)), "broken off"], "The connection broke"),
        ([READY], "The connection broke"),
    ],
)
def test_every_failure_is_told_in_words(
    browser: Browser, script: Callable[..., Script], document: Path, answer: Any, words: str
) -> None:
    script(answer)
    read(browser, document, "failed")
    assert words in browser.text("#failure")
    assert words in browser.text("#sources .how")
    assert words in browser.text("#said")
    if answer[-1] not in ({}, "broken off", READY):
        assert "in the server's words" in browser.text("#failure")
        assert "r-17" in browser.text("#failure")
    # The browser itself tells of every status that is no success, and of a connection that broke.
    assert all("/v1/process" in fault for fault in browser.faults())


def test_a_job_that_found_no_room_is_sent_again(
    browser: Browser, script: Callable[..., Script], document: Path
) -> None:
    full = (429, problem("QUEUE_FULL", retry_after_ms=20))
    late = {"failed": {"error": {"code": 8, "reason": "QUEUE_FULL", "message": "full", "retry_after_ms": 20}}}
    port = script(full, [READY, late, JOB_DONE], TREE)
    read(browser, document)
    assert len(port.requests) == 3
    browser.faults()


def test_the_pipeline_is_chosen_and_its_parameters_are_asked_for(
    browser: Browser, script: Callable[..., Script], document: Path
) -> None:
    port = script(TREE, TREE)
    read(browser, document)
    assert port.requests[0]["query"] == {"pipeline": "layout", "characters": "true"}
    browser.run(
        "const field = document.querySelector('#pipeline'); field.value = 'parking';"
        "field.dispatchEvent(new Event('change'));"
    )
    assert browser.text("#params") == "place<b>day</b>"
    browser.find("#params input").send_keys("north")
    read(browser, document)
    body = port.requests[1]["body"]
    assert body["pipeline"] == "parking"
    assert body["sources"][0]["params"] == {"place": "north", "<b>day</b>": ""}
    assert body["sources"][0]["image"]
