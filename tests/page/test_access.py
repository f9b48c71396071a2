"""Who can use the page: with a screen reader, by touch, in the dark, with a token; and what it may reach."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from browser import DESKTOP, PHONE, Browser
from page_server import Background
from selenium.webdriver.common.keys import Keys
from sluiceway_orchestrator.testing import Cluster, FakeDetection
from sluiceway_runtime.errors import InvalidImage
from sluiceway_runtime.server.security import Security, SecurityConfig

Open = Callable[..., Cluster]
Photo = Callable[..., Path]


def faults_of(browser: Browser, axe: str) -> list[str]:
    """What axe-core finds that is serious or worse, as rule and place."""
    if not browser.run("return Boolean(window.axe)"):
        browser.run(axe)
    found = browser.driver.execute_async_script(
        "axe.run(document, { resultTypes: ['violations'] }).then((result) => arguments[0](result.violations))"
    )
    return [
        f"{item['id']}: {node['target']} {node['failureSummary']}"
        for item in found
        if item["impact"] in ("serious", "critical")
        for node in item["nodes"]
    ]


async def refuse_the_second(number: int) -> None:
    if number & 0xFFFF == 2:
        raise InvalidImage("not an image of a known format")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_no_serious_fault(
    browser: Browser, open_page: Open, photo: Photo, axe: str, size: tuple[int, int], dark: bool
) -> None:
    browser.look(size, dark=dark)
    open_page(detector=FakeDetection(before=refuse_the_second))
    assert faults_of(browser, axe) == []
    browser.drop([photo(1), photo(2)])
    browser.until(lambda: browser.count("#sources li.done, #sources li.failed") == 2, "not read")
    browser.until(lambda: browser.count("#viewer .region") == 3, "not drawn")
    for tab in ("regions", "steps", "text"):
        browser.click(f"#tab-{tab}")
        browser.run(
            "document.querySelector(arguments[0]).dispatchEvent(new MouseEvent('click', { bubbles: true }))",
            "#viewer [data-region='1']",
        )
        assert faults_of(browser, axe) == [], tab
    browser.click("#sources li.failed .source")
    assert browser.find("#failure").is_displayed()
    assert faults_of(browser, axe) == []
    browser.click("#tab-cluster")
    browser.until(lambda: browser.count(".stages .card") == 2, "no stages")
    assert faults_of(browser, axe) == []


def test_axe_sees_faults(browser: Browser, open_page: Open, axe: str) -> None:
    """The check above can fail."""
    open_page()
    browser.run("document.querySelector('#choose').textContent = ''")
    assert any(fault.startswith("button-name") for fault in faults_of(browser, axe))


def test_a_phone_shows_all_in_its_width(browser: Browser, open_page: Open, photo: Photo) -> None:
    browser.look(PHONE)
    open_page()
    browser.drop([photo(1, size=(4000, 3000)), photo(2)])
    browser.until(lambda: browser.count("#sources li.done") == 2, "not read")
    for tab in ("cluster", "images"):
        browser.click(f"#tab-{tab}")
        assert browser.run("return [innerWidth, document.documentElement.scrollWidth]") == [PHONE[0], PHONE[0]]
    assert browser.find("#photograph").is_displayed()
    assert browser.run("return document.querySelector('#camera').getAttribute('capture')") == "environment"
    small = browser.run(
        "return [...document.querySelectorAll('button, input:not([hidden]), select')]"
        ".filter((control) => control.offsetParent && control.getBoundingClientRect().height < 32)"
        ".map((control) => control.id || control.className)"
    )
    assert small == []


def test_a_token_is_asked_for_and_kept_nowhere(browser: Browser, open_page: Open, photo: Photo) -> None:
    config = SecurityConfig.model_validate({"clients": {"someone": {"token_env": "TOKEN"}}})
    open_page(service={"security": Security(config, {"TOKEN": "a-token"})})
    dialog = browser.find("#token-dialog")
    browser.until(dialog.is_displayed, "no token is asked for")
    browser.find("#token").send_keys(f"wrong{Keys.ENTER}")
    browser.until(lambda: dialog.is_displayed() and browser.find("#token").get_attribute("value") == "", "not refused")
    browser.find("#token").send_keys(f"a-token{Keys.ENTER}")
    browser.until(lambda: browser.count("#pipeline option") == 1, "the token does not count")
    browser.drop([photo()])
    browser.until(lambda: browser.count("#sources li.done") == 1, "not read")
    assert browser.run("return [localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    assert all("401" in fault for fault in browser.faults())


def test_the_page_reaches_nothing_but_its_server(browser: Browser, open_page: Open, photo: Photo) -> None:
    open_page()
    browser.drop([photo()])
    browser.until(lambda: browser.count("#sources li.done") == 1, "not read")
    origin = browser.run("return location.origin")
    asked = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert len(asked) > 10
    assert all(name.startswith((f"{origin}/", f"blob:{origin}/")) for name in asked), asked
    # And it could not, if a fault of it let somebody in.
    refused = browser.driver.execute_async_script(
        "const done = arguments[0]; const seen = new Set();"
        "document.addEventListener('securitypolicyviolation', (event) => {"
        "  seen.add(event.effectiveDirective); if (seen.size === 4) done([...seen].sort()); });"
        "fetch('http://127.0.0.2:9/').catch(() => {});"
        "const image = new Image(); image.src = 'http://127.0.0.2:9/a.png';"
        "const script = document.createElement('div'); script.setAttribute('style', 'color: red');"
        "try { script.innerHTML = '<b>x</b>'; } catch {}"
    )
    assert refused == ["connect-src", "img-src", "require-trusted-types-for", "style-src-attr"]
    browser.faults()


def test_the_cluster_is_shown_live(browser: Browser, background: Background, open_page: Open) -> None:
    cluster = open_page()
    browser.click("#tab-cluster")
    browser.until(lambda: browser.count(".state.up") == 2, "the stages are not shown")
    shown = browser.text("#view-cluster")
    assert "fake-reader 1" in shown
    assert cluster.detection[0].address in shown
    assert "read the default" in shown
    # What a person has selected stays when the figures change.
    browser.run("window.kept = document.querySelector('.stages h3')")
    background.run(cluster.recognition[0].serving(yes=False))
    browser.until(lambda: browser.count(".state.down") == 1, "a stage that is not ready is not told")
    browser.until(lambda: "recognition: no replica is ready" in browser.text(".limits"), "it is not said to limit")
    assert browser.run("return window.kept.isConnected")
    background.run(cluster.recognition[0].serving(yes=True))
    browser.until(lambda: browser.count(".state.up") == 2, "a stage that came back is not told")
    # Nothing is asked while nobody looks; a look is a second after the one before it.
    sampler = cluster.service._watching._sampler
    browser.click("#tab-images")

    def nobody_asks() -> bool:
        before = sampler._last
        browser.driver.execute_async_script("setTimeout(arguments[0], 1500)")
        return sampler._last is before

    browser.until(nobody_asks, "it is asked on")
    before = sampler._last
    browser.click("#tab-cluster")
    browser.until(lambda: sampler._last is not before, "it is not asked again")
    background.run(cluster.service.http.close())
    browser.until(lambda: "cannot be reached" in browser.text("#view-cluster [role=alert]"), "not told")
    assert browser.count(".state.up") == 2, "what was known is gone"
    browser.faults()
