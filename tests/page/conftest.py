"""A browser for all tests of the page; `make test-page` brings what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import Browser, open_browser
from page_server import Background, photograph
from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They need a browser, and on a busy machine that takes its time."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def one_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests."""
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="session")
def one_background() -> Iterator[Background]:
    """One loop for the servers of all tests."""
    with Background() as background:
        yield background


@pytest.fixture
def background(one_background: Background) -> Iterator[Background]:
    """Where servers run; those of a test end with it."""
    yield one_background
    one_background.leave()


@pytest.fixture
def browser(one_browser: Browser, background: Background) -> Iterator[Browser]:
    """A window of a desktop's size; what went wrong in it by itself fails the test, at its end.

    That is before its server ends (`background`), which a page that still asks would tell of.
    """
    one_browser.driver.get("about:blank")
    one_browser.faults()
    one_browser.look()
    yield one_browser
    faults = one_browser.faults()
    one_browser.driver.get("about:blank")
    assert not faults


@pytest.fixture
def photo(tmp_path: Path) -> Callable[..., Path]:
    """Makes a photograph with some regions."""
    return lambda number=7, regions=3, **options: photograph(
        tmp_path / f"photo{number}.jpg", number, regions, **options
    )


@pytest.fixture
def open_page(background: Background, browser: Browser) -> Callable[..., Cluster]:
    """Starts a cluster without models and opens its page."""

    def start(
        detector: FakeDetection | None = None, reader: FakeRecognition | None = None, **options: object
    ) -> Cluster:
        options.setdefault("http", {"port": 0})
        stages = [detector or FakeDetection()], [reader or FakeRecognition()]
        cluster: Cluster = background.enter(lambda: Cluster(*stages, **options))
        browser.driver.get(f"http://127.0.0.1:{cluster.service.http.port}/")
        if "security" not in (options.get("service") or {}):
            browser.until(lambda: browser.count("#pipeline option"), "the server is not described")
        return cluster

    return start


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    file = HERE.parents[1] / "build" / "page" / "node_modules" / "axe-core" / "axe.min.js"
    assert file.exists(), "no axe-core: run `make test-page`"
    return file.read_text("utf-8")
