"""The page on the public HTTP port: its files and their headers. What it does is tested in a browser (tests/page)."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from http_port import serve
from sluiceway_orchestrator.http.page.files import page_routes
from sluiceway_runtime.server.security import Security, SecurityConfig

STATIC = {
    file.name: file.read_text("utf-8")
    for file in files("sluiceway_orchestrator.http.page").joinpath("static").iterdir()
}


async def test_the_page_and_all_that_it_names_is_served() -> None:
    async with serve() as http:
        async with http.session.get(f"{http.url}/") as response:
            assert (response.status, response.content_type, response.charset) == (200, "text/html", "utf-8")
            page = await response.text()
        named = re.findall(r'(?:src|href)="(page/[^"]+)"', page)
        named += [f"page/{name}" for text in STATIC.values() for name in re.findall(r'from "\./(\w+\.js)"', text)]
        assert len(set(named)) == len(STATIC) - 1, "a file is used by nothing"
        for path in set(named):
            async with http.session.get(f"{http.url}/{path}") as response:
                assert response.status == 200, path
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
                assert policy["default-src"] == "'none'"
                assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
                assert policy["frame-ancestors"] == "'none'"


async def test_a_copy_that_is_current_is_not_sent_again() -> None:
    async with serve() as http:
        async with http.session.get(f"{http.url}/page/app.js") as response:
            tag = response.headers["ETag"]
        async with http.session.get(f"{http.url}/page/app.js", headers={"If-None-Match": f'"old", {tag}'}) as response:
            assert (response.status, await response.read(), response.headers["ETag"]) == (304, b"", tag)
        async with http.session.get(f"{http.url}/page/app.js", headers={"If-None-Match": '"old"'}) as response:
            assert response.status == 200


@pytest.mark.parametrize(
    "path", ["/page/", "/page/nothing.js", "/page/index.html", "/page/..%2Ffiles.py", "/page/%2e%2e/port.py"]
)
async def test_nothing_else_is_served(path: str) -> None:
    async with serve() as http, http.session.get(f"{http.url}{path}") as response:
        assert response.status == 404


async def test_the_page_can_be_left_out() -> None:
    async with serve({"page": False}) as http:
        for path in ("/", "/page/app.js"):
            async with http.session.get(f"{http.url}{path}") as response:
                assert response.status == 404
        async with http.session.get(f"{http.url}/v1/describe") as response:
            assert response.status == 200


async def test_the_page_is_open_and_what_it_asks_for_is_not() -> None:
    config = SecurityConfig.model_validate({"clients": {"someone": {"token_env": "TOKEN"}}})
    async with serve(security=Security(config, {"TOKEN": "a-token"})) as http:
        async with http.session.get(f"{http.url}/") as response:
            assert response.status == 200
        async with http.session.get(f"{http.url}/", headers={"Host": "attacker.example"}) as response:
            assert response.status == 421
        async with http.session.get(f"{http.url}/v1/describe") as response:
            assert response.status == 401


def test_the_files_name_no_other_place_and_take_no_html_as_text() -> None:
    assert len(page_routes()) == len(STATIC)
    for name, text in STATIC.items():
        addresses = set(re.findall(r"https?://[\w.]+", text)) - {"http://www.w3.org"}
        assert not addresses, (name, addresses)
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text), name
        assert len(text.splitlines()) < 400, f"{name} is too long"
