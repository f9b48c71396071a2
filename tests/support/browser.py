"""A headless Chromium of Debian's packages, driven by selenium, for tests of the page and for its pictures."""

from __future__ import annotations

import json
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import websocket
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

__all__ = ["DESKTOP", "PHONE", "Browser", "Typing", "open_browser"]

DESKTOP, PHONE = (1360, 860), (390, 844)
# Nothing of the browser's own may call out, and what it is asked for must work on a machine without a GPU.
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-quic",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
_PATIENCE_S = 60.0
_TRACED = {"includedCategories": ["disabled-by-default-devtools.timeline"], "excludedCategories": ["*"]}


@dataclass
class Typing:
    """What the page did while keys were pressed.

    Attributes:
        longest_ms: its longest piece of work, in time on a core. What a key waits is at most about that, and what other
            programs take of the cores meanwhile.
        share: how much of a core the page had while it worked, (0, 1].
    """

    longest_ms: float = 0.0
    share: float = 1.0


class Browser:
    """One window, with waits for states."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def look(self, size: tuple[int, int] = DESKTOP, *, dark: bool = False, scale: float = 1) -> None:
        """Take the size of a window, and a taste for light or dark."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": size == PHONE})
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page; returns what it returns."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> WebElement:
        """The first element of a CSS selector, once it is there."""
        return self.until(lambda: next(iter(self.all(selector)), None), f"no {selector}")

    def all(self, selector: str) -> list[WebElement]:
        """Every element of a CSS selector that is there now."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def count(self, selector: str) -> int:
        """How many there are now."""
        return int(self.run("return document.querySelectorAll(arguments[0]).length", selector))

    def text(self, selector: str) -> str:
        """The text of an element as it is in the document, seen or not."""
        return str(self.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector))

    def click(self, selector: str) -> None:
        """Click on it, in the middle of the window as a person would have it."""
        element = self.find(selector)
        self.run("arguments[0].scrollIntoView({ block: 'center' })", element)
        element.click()

    def until(self, look: Callable[[], Any], what: str) -> Any:
        """Wait for something that is true."""
        end = time.monotonic() + _PATIENCE_S
        while not (found := look()):
            assert time.monotonic() < end, f"{what}; the page says {self.text('body')[:2000]!r}"
            time.sleep(0.02)
        return found

    def drop(self, files: Sequence[Path]) -> None:
        """Drop files on the middle of the window, as a hand does."""
        width, height = self.run("return [innerWidth, innerHeight]")
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        place = {"x": width // 2, "y": height // 2, "data": data}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.driver.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, **place})

    @contextmanager
    def typing(self) -> Iterator[Typing]:
        """Press a key, some twenty times a second, whatever the page does meanwhile.

        It goes to the browser beside the driver, which waits for the page before each of its own commands: keys of the
        driver's would come only when the page has time for them.
        """
        address = self.driver.capabilities["goog:chromeOptions"]["debuggerAddress"]
        [page] = [target for target in _ask(f"http://{address}/json") if target["type"] == "page"]
        typing = Typing()
        over = threading.Event()
        with (
            closing(_socket(page["webSocketDebuggerUrl"], 0.02)) as keys,
            closing(_socket(_ask(f"http://{address}/json/version")["webSocketDebuggerUrl"], _PATIENCE_S)) as trace,
        ):
            _send(trace, 1, "Tracing.start", {"transferMode": "ReportEvents", "traceConfig": _TRACED})
            trace.recv()
            thread = threading.Thread(target=_press, args=(keys, over))
            thread.start()
            try:
                yield typing
            finally:
                over.set()
                thread.join()
                tasks = _tasks_of_pages(_traced(trace))
                typing.longest_ms = max(task["tdur"] for task in tasks) / 1000
                typing.share = sum(task["tdur"] for task in tasks) / sum(task["dur"] for task in tasks)

    def faults(self) -> list[str]:
        """What the console has of errors since the last call: exceptions, refusals of the policy, broken loads."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


def _ask(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=_PATIENCE_S) as answer:
        return json.load(answer)


def _socket(address: str, timeout_s: float) -> websocket.WebSocket:
    return websocket.create_connection(address, suppress_origin=True, timeout=timeout_s)


def _send(socket: websocket.WebSocket, number: int, method: str, params: dict[str, Any]) -> None:
    socket.send(json.dumps({"id": number, "method": method, "params": params}))


def _press(socket: websocket.WebSocket, over: threading.Event) -> None:
    number = 0
    while not over.is_set():
        for kind in ("keyDown", "keyUp"):
            number += 1
            _send(socket, number, "Input.dispatchKeyEvent", {"type": kind, "key": "Shift"})
            # What comes back says nothing, but has to be taken away.
            with suppress(websocket.WebSocketTimeoutException):
                socket.recv()


def _traced(socket: websocket.WebSocket) -> list[dict[str, Any]]:
    """End a trace; its events."""
    _send(socket, 2, "Tracing.end", {})
    events = []
    while (message := json.loads(socket.recv())).get("method") != "Tracing.tracingComplete":
        if message.get("method") == "Tracing.dataCollected":
            events += message["params"]["value"]
    return events


def _tasks_of_pages(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the main threads of pages did, piece by piece; keys are taken between two of them."""
    named = [event for event in events if event["name"] == "thread_name"]
    mains = {(event["pid"], event["tid"]) for event in named if event["args"]["name"] == "CrRendererMain"}
    tasks = [
        event
        for event in events
        if event["name"] == "RunTask" and (event["pid"], event["tid"]) in mains and "tdur" in event
    ]
    assert tasks, "the trace has no task"
    return tasks


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """Open a window with an empty profile; closes it, and the browser with it."""
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in programs.items() if path is None]
    assert not missing, (
        f"no {' and no '.join(missing)}: apt-get install --no-install-recommends chromium chromium-driver"
    )
    options = ChromeOptions()
    options.binary_location = str(programs["chromium"])
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = Chrome(options, Service(programs["chromedriver"]))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
