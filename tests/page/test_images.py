"""Images in the page: how they come in, what is drawn, what is told of failures, what can be copied."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from browser import Browser
from page_server import Background, read_in
from selenium.webdriver.common.keys import Keys
from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition
from sluiceway_runtime.errors import InvalidImage, ModelFailed
from web_sources import LOOPBACK, http

from sluiceway import Client

# What is read in the photograph that has no number of its own.
TEXTS = [read_in(7, region) for region in range(3)]
# From here on a page has a core to itself.
ALONE = 0.8
Open = Callable[..., Cluster]
Photo = Callable[..., Path]
DONE = "#sources li.done"
TITLES = "return [...document.querySelectorAll('.tree .title')].map((title) => title.textContent)"


class Hold:
    """Stops what is read until it is let go, one region at a time."""

    def __init__(self, background: Background) -> None:
        self._background = background
        self._free = asyncio.Semaphore(0)

    async def __call__(self, *_: int) -> None:
        await self._free.acquire()

    def let_go(self, count: int = 1) -> None:
        for _ in range(count):
            self._background.call(self._free.release)


def drop_and_wait(browser: Browser, file: Path) -> None:
    browser.drop([file])
    browser.until(lambda: browser.count(DONE) == 1, "not read")
    browser.until(lambda: not browser.count(".region.pending"), "not every region was drawn")
    browser.until(lambda: browser.run("return document.querySelector('.sheet img').naturalWidth"), "no picture")
    # From the bottom up, as the stage numbers them: the order of reading is the other way round.
    browser.until(lambda: browser.run(TITLES) == TEXTS[::-1], "the tree is not in the order of reading")


def test_regions_and_texts_are_drawn_as_they_come(
    browser: Browser, background: Background, open_page: Open, photo: Photo
) -> None:
    """The first box is there while nothing was read yet, and the first text while the rest was not."""
    hold = Hold(background)
    open_page(reader=FakeRecognition(before=hold))
    browser.drop([photo(7, regions=3)])
    browser.until(lambda: browser.count("#viewer .region.pending") == 3, "no regions")
    assert browser.text("#sources .how") == "3 regions so far"
    assert browser.count(DONE) == 0
    hold.let_go()
    browser.until(lambda: TEXTS[0] in browser.text("#panel-text"), "no text")
    browser.until(lambda: browser.count("#viewer .region.pending") == 2, "the region that was read looks the same")
    assert browser.count(DONE) == 0
    hold.let_go(2)
    browser.until(lambda: browser.count(DONE) == 1, "not done")
    browser.until(lambda: not browser.count("#viewer .region.pending"), "a region is still waited for")
    browser.until(lambda: browser.run(TITLES) == TEXTS[::-1], "the tree is not in the order of reading")
    assert "photo7.jpg: 3 regions" in browser.text("#said")
    assert "3 regions, 3 with text" in browser.text("#summary")


def test_a_region_shows_its_crop_and_how_sure_the_models_are(browser: Browser, open_page: Open, photo: Photo) -> None:
    open_page()
    drop_and_wait(browser, photo())
    browser.find("#viewer [data-region='1'] polygon").click()
    assert browser.text("#detail h2") == TEXTS[1]
    shown = browser.text("#detail")
    assert "90 %" in shown
    assert "80 %" in shown
    assert "10, 20 to 90, 36 px" in shown
    width, height, colours = browser.run(
        "const crop = document.querySelector('#detail canvas');"
        "const pixels = crop.getContext('2d').getImageData(0, 0, crop.width, crop.height).data;"
        "return [crop.width, crop.height, new Set(pixels).size];"
    )
    # 80 x 16 pixels and what is around them, at most four times as large.
    assert width > 3 * 80
    assert height > 3 * 16
    assert colours > 10, "the crop is empty"
    assert browser.count("#viewer .region.selected") == 1
    assert browser.text("#panel-text .chosen") == TEXTS[1]


def test_the_keyboard_reaches_everything(browser: Browser, open_page: Open, photo: Photo) -> None:
    open_page()
    drop_and_wait(browser, photo())
    browser.find("#tab-text").send_keys(Keys.ARROW_RIGHT)
    browser.find("[role=treeitem][tabindex='0']").send_keys(Keys.ENTER)
    assert browser.text("#detail h2") == TEXTS[2]
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert browser.text("#detail h2") == TEXTS[1]
    assert browser.text(":focus .title") == TEXTS[1]
    browser.driver.switch_to.active_element.send_keys(Keys.END)
    assert browser.text("#detail h2") == TEXTS[0]
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert browser.run("return document.querySelector('#detail').hidden")
    # Forward from the top of the page, every control comes.
    browser.run("document.activeElement.blur(); scrollTo(0, 0)")
    reached = set()
    for _ in range(40):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(browser.run("return document.activeElement.id || document.activeElement.className"))
    wanted = {"skip", "tab-images", "choose", "url", "pipeline", "clear", "source", "show-boxes", "larger", "copy-json"}
    assert wanted <= reached


def copied(browser: Browser, what: str) -> str:
    """What lands on the clipboard."""
    browser.run("navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }")
    browser.click(f"#copy-{what}")
    browser.until(lambda: browser.text("#copied") == "Copied.", "not copied")
    return str(browser.run("return window.copied"))


def test_what_is_copied(browser: Browser, open_page: Open, photo: Photo) -> None:
    cluster = open_page()
    file = photo()
    drop_and_wait(browser, file)
    assert copied(browser, "text") == "\n".join(TEXTS[::-1])
    assert copied(browser, "markdown") == "## photo7.jpg\n\n" + "  \n".join(TEXTS[::-1]) + "\n"
    shown = json.loads(copied(browser, "json"))
    with Client(f"127.0.0.1:{cluster.server.port}") as client:
        expected = client.process(file).to_dict()
    assert expected.pop("request_id")
    assert shown.pop("timings_ms").keys() == expected.pop("timings_ms").keys()
    assert shown == expected | {"source": "photo7.jpg"}


def test_copying_where_the_browser_keeps_its_clipboard_to_itself(
    browser: Browser, open_page: Open, photo: Photo
) -> None:
    """As with a page over plain HTTP from another machine: the older way is taken, and a refusal is told."""
    open_page()
    drop_and_wait(browser, photo())
    browser.run("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    browser.run("document.addEventListener('copy', () => { window.copied = String(getSelection()); })")
    browser.click("#copy-text")
    browser.until(lambda: browser.text("#copied") == "Copied.", "not copied")
    browser.run("document.execCommand = () => false")
    browser.click("#copy-text")
    browser.until(lambda: "did not let" in browser.text("#copied"), "a failure is not told")


def test_images_are_chosen_and_pasted(browser: Browser, open_page: Open, photo: Photo) -> None:
    open_page()
    browser.find("#files").send_keys(f"{photo(1)}\n{photo(2)}")
    browser.until(lambda: browser.count(DONE) == 2, "not every image was read")
    browser.run(
        "const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));"
        "const data = new DataTransfer(); data.items.add(new File([bytes], 'image.png', { type: 'image/png' }));"
        "document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }));",
        base64.b64encode(photo(3).read_bytes()).decode(),
    )
    browser.until(lambda: browser.count(DONE) == 3, "what was pasted was not read")
    assert browser.count("#sources .name") == 3
    assert "pasted.png" in browser.text("#sources")
    assert read_in(3, 0) in browser.text("#panel-text")
    browser.click("#clear")
    assert browser.count("#sources li") == 0
    assert browser.run("return !document.querySelector('#empty').hidden")


def test_a_url_is_fetched_by_the_server_and_drawn(
    browser: Browser, background: Background, open_page: Open, photo: Photo
) -> None:
    image = photo(5).read_bytes()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=image, content_type="image/jpeg")

    address = background.enter(lambda: http(answer))
    open_page(url_allow_cidrs=LOOPBACK)
    browser.find("#url").send_keys(f"{address}/a.jpg{Keys.ENTER}")
    browser.until(lambda: browser.count(DONE) == 1, "not read")
    browser.until(lambda: browser.run("return document.querySelector('.sheet img').naturalWidth") == 640, "not drawn")
    browser.run(
        "const data = new DataTransfer(); data.setData('text/plain', arguments[0]);"
        "document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }));",
        f"{address}/b.jpg",
    )
    browser.until(lambda: browser.count(DONE) == 2, "a pasted address was not read")


def test_where_the_server_fetches_no_urls(browser: Browser, open_page: Open) -> None:
    open_page(url_sources=False)
    browser.until(lambda: not browser.find("#url").is_enabled(), "the field can be used")
    assert browser.find("#url-hint").is_displayed()


async def refuse(number: int) -> None:
    number &= 0xFFFF
    if number == 1:
        raise InvalidImage("not an image of a known format")
    if number == 2:
        raise ModelFailed("the model raised")


def test_failures_are_told_in_words_and_can_be_tried_again(browser: Browser, open_page: Open, photo: Photo) -> None:
    cluster = open_page(detector=FakeDetection(before=refuse))
    browser.drop([photo(1), photo(2), photo(3)])
    browser.until(lambda: browser.count("#sources li.failed") == 2, "no failure")
    browser.until(lambda: browser.count(DONE) == 1, "a neighbour did not end")
    assert "This file cannot be read as an image." in browser.text("#failure")
    assert "not an image of a known format" in browser.text("#failure")
    assert "INVALID_IMAGE" in browser.text("#failure")
    assert "The model failed on this image." in browser.text("#sources li:nth-child(2) .how")
    failed = json.loads(copied(browser, "json"))
    assert failed["error"] == {
        "code": "INVALID_ARGUMENT", "reason": "INVALID_IMAGE", "message": "not an image of a known format",
    }  # fmt: skip
    cluster.detection[0].stage.before = None
    browser.click("#failure button")
    browser.until(lambda: browser.count(DONE) == 2, "trying again did not help")
    assert not browser.find("#failure").is_displayed()


def test_what_cannot_be_sent_is_told_before_it_is(browser: Browser, open_page: Open, photo: Photo) -> None:
    cluster = open_page(max_image_bytes=20_000)
    large = photo(1)
    large.write_bytes(large.read_bytes().ljust(30_000))
    folder = large.parent / "folder"
    folder.mkdir()
    browser.drop([large, folder])
    browser.until(lambda: browser.count("#sources li.failed") == 2, "no failure")
    assert "it has 30 kB, at most 20 kB are taken" in browser.text("#failure")
    assert "Is it a folder" in browser.text("#sources li:nth-child(2) .how")
    assert not cluster.detection[0].stage.seen
    # What the browser says of the folder.
    browser.faults()


def test_an_image_that_is_removed_ends_its_job(
    browser: Browser, background: Background, open_page: Open, photo: Photo
) -> None:
    hold = Hold(background)
    cluster = open_page(detector=FakeDetection(before=hold))
    browser.drop([photo(1), photo(2)])
    stage = cluster.detection[0].stage
    browser.until(lambda: stage.running == 2, "not sent")
    browser.click("#sources li:first-child [title=Remove]")
    browser.until(lambda: stage.cancelled == 1, "the job goes on")
    assert "photo2.jpg" in browser.text("#summary")
    hold.let_go()
    browser.until(lambda: browser.count(DONE) == 1, "the other job ended")


def test_a_server_that_is_gone_is_told(browser: Browser, background: Background, open_page: Open, photo: Photo) -> None:
    cluster = open_page()
    background.run(cluster.service.http.close())
    browser.drop([photo()])
    browser.until(lambda: browser.count("#sources li.failed") == 1, "no failure")
    assert "The server cannot be reached." in browser.text("#failure")
    assert any("ERR_CONNECTION_REFUSED" in fault for fault in browser.faults())


@pytest.mark.parametrize(
    ("images", "regions", "size"),
    [(20, 60, (4000, 3000)), (1, 3000, (640, 480))],
    ids=["twenty photographs of twelve megapixels", "a page of 3,000 regions"],
)
def test_the_page_stays_quick(
    browser: Browser, open_page: Open, photo: Photo, images: int, regions: int, size: tuple[int, int]
) -> None:
    """Keys that come while images are read and drawn wait less than 100 ms.

    That is, no piece of the page's work takes longer, in time on a core: keys are taken between two of them. Where the
    page has a core to itself, the waits of the keys are held to the same, as the browser tells them (Event Timing);
    elsewhere they say more of the machine than of the page. That a page which holds up keys would be seen is shown at
    the end.
    """
    files = [photo(number, regions=regions, size=size) for number in range(images)]
    open_page()
    browser.run(
        "window.waits = []; window.keys = 0;"
        "new PerformanceObserver((list) => {"
        "  for (const entry of list.getEntries()) window.waits.push(entry.processingStart - entry.startTime);"
        "}).observe({ type: 'event', durationThreshold: 16 });"
        "addEventListener('keydown', () => { window.keys += 1; });"
    )
    longest = "return Math.max(0, ...window.waits)"
    with browser.typing() as typing:
        browser.drop(files)
        browser.until(lambda: browser.count(DONE) == images, "not every image was read")
        browser.until(lambda: not browser.count(".pending"), "not everything was drawn")
    waited = browser.run(longest)
    print(f"longest work {typing.longest_ms:.0f} ms, longest wait {waited:.0f} ms, with {typing.share:.0%} of a core")
    assert browser.run("return window.keys") > 3, "nothing was pressed meanwhile"
    assert typing.longest_ms < 100
    assert waited < 100 or typing.share < ALONE
    # A second or so of work, however long that takes here.
    browser.run("window.waits = []")
    with browser.typing() as typing:
        browser.run("setTimeout(() => { let sum = 0; for (let n = 0; n < 1e9; n += 1) sum ^= n; window.sum = sum; })")
        browser.until(lambda: browser.run("return window.sum !== undefined"), "the work is not done")
        browser.until(lambda: browser.run(longest), "a page that stood still is not seen")
    assert typing.longest_ms > 100
    assert browser.run(longest) > 100
