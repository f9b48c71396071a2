"""Bodies of the HTTP port as people send them: forms with files, and bytes with no type or with the wrong one."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from http_port import Http, serve
from sluiceway_orchestrator.http.form import Untyped, look_at
from sluiceway_orchestrator.testing import picture
from sluiceway_runtime.account import Phase
from sluiceway_runtime.priority import Priority

MIB = 2**20
# What curl says of `--data-binary` unless it is told otherwise, and wget of `--post-file`.
CURL = {"Content-Type": "application/x-www-form-urlencoded"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=XX"}
JSON = {"Accept": "application/json"}


def part(name: str, content: bytes, file_name: str | None = None, *lines: str) -> bytes:
    disposition = f'form-data; name="{name}"' + ("" if file_name is None else f'; filename="{file_name}"')
    head = "\r\n".join((f"Content-Disposition: {disposition}", *lines))
    return b"--XX\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--XX--\r\n"


async def post(http: Http, body: bytes, headers: dict[str, str], query: str = "") -> tuple[int, Any]:
    request = http.session.post(
        f"{http.url}/v1/process{query}",
        data=io.BytesIO(body),
        headers={**headers, **JSON},
        skip_auto_headers=("Content-Type",),
    )
    async with request as response:
        assert response.request_info.headers.get("Content-Type") == headers.get("Content-Type")
        return response.status, json.loads(await response.text())


@pytest.mark.parametrize(
    "headers", [CURL, {}, {"Content-Type": "application/octet-stream"}, {"Content-Type": "application/pdf"}]
)
async def test_an_image_needs_no_type(headers: dict[str, str]) -> None:
    async with serve() as http:
        status, answer = await post(http, picture(7), headers, "?job_id=mine")
    assert (status, [region["text"] for region in answer["regions"]]) == (200, ["7:1", "7:0"])


@pytest.mark.parametrize("headers", [CURL, {}])
async def test_json_and_plain_forms_are_told_from_images(headers: dict[str, str]) -> None:
    image = base64.b64encode(picture(3)).decode()
    bodies = [
        json.dumps({"sources": [{"image": image}]}).encode(),
        b"\n  " + json.dumps({"sources": [{"url": f"data:image/png;base64,{image}"}]}).encode(),
        urlencode({"url": f"data:image/png;base64,{image}", "confidence": "0.5"}).encode(),
    ]
    async with serve() as http:
        for body in bodies:
            status, answer = await post(http, body, headers)
            assert (status, [region["text"] for region in answer["regions"]]) == (200, ["3:1", "3:0"]), answer


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"sources": []}', Untyped.JSON), (b" \n{}", Untyped.JSON), (b"url=http://a/b%20c&iou=.5", Untyped.FORM),
        (b"url=", Untyped.FORM), (b"a=b\n", Untyped.FORM), (b"\xff\xd8\xff\xe0", Untyped.IMAGE), (b"", Untyped.IMAGE),
        (b"\x89PNG\r\n\x1a\n", Untyped.IMAGE), (b"GIF89a=b", Untyped.IMAGE), (b"BM=\x00\x00\x00", Untyped.IMAGE),
        (b"%PDF-1.7\n{}", Untyped.IMAGE), (b"hello", Untyped.IMAGE), (b"<svg a='b'>", Untyped.IMAGE),
    ],
)  # fmt: skip
def test_what_a_body_is_by_its_beginning(body: bytes, kind: Untyped) -> None:
    # A GIF of which only this is printable.
    given = b"GIF89a=b\x00" if body.startswith(b"GIF") else body
    assert look_at(given) is kind
    assert look_at(bytearray(given)) is kind


async def test_a_form_with_one_file_is_one_image() -> None:
    async with serve() as http:
        data = aiohttp.FormData()
        data.add_field("file", picture(4, regions=1), filename="photo.jpg", content_type="image/jpeg")
        async with http.session.post(f"{http.url}/v1/process", data=data) as response:
            events = [json.loads(line) for line in (await response.text()).splitlines()]
    assert response.status == 200
    assert [event["source_id"] for event in events] == ["photo.jpg"] * 4 + [""]
    assert events[-1]["job_done"] == {"succeeded": 1, "failed": 0}


async def test_a_form_with_files_urls_and_options() -> None:
    url = "data:image/png;base64," + base64.b64encode(picture(9, regions=1)).decode()
    body = form(
        part("a", picture(1, regions=1), "page.png", "Content-Type: image/png"),
        part("detect_only", b"true"),
        part("text_layer", b"prefer"),
        part("b", picture(2, regions=1), "page.png"),
        part("image", picture(3, regions=1)),
        part("files[]", picture(4, regions=1), "7"),
        part("timeout_s", b"30"),
        part("url", url.encode()),
        part("job_id", "größe".encode()),
    )
    async with serve() as http:
        status, answer = await post(http, body, MULTIPART)
        assert status == 200
        assert [result["source"] for result in answer] == ["page.png", "page.png_2", "2", "3", "4"]
        assert all(result["status"] == "ok" and result["regions"][0]["text"] is None for result in answer)
        _, _, events = await http.post(body, **MULTIPART)
        assert {event["job_id"] for event in events} == {"größe"}


async def test_a_name_that_another_file_would_get_is_given_once() -> None:
    names = ("a", "a_2", "a", "b/c ä.png", "?")
    body = form(*(part("file", picture(n), name) for n, name in enumerate(names)))
    # A name in an older encoding, which no message can carry as it is.
    body = body.replace(b'"?"', b'"\xe4"')
    async with serve() as http:
        _, answer = await post(http, body, MULTIPART)
    assert [result["source"] for result in answer] == ["a", "a_2", "a_3", "b/c ä.png", "4"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (form(), 400, "neither a file nor"),
        (form(part("confidence", b"0.5")), 400, "neither a file nor"),
        (form(part("file", picture(1), "a"), part("colour", b"red")), 400, "colour: no such parameter"),
        (form(part("file", picture(1), "a"), part("iou", b"1"), part("iou", b"1")), 400, "iou: given twice"),
        (form(part("file", picture(1), "a"), part("iou", b"often")), 400, "iou: 'often'"),
        (form(part("file", picture(1), "a"), part("timeout_s", b"-1")), 400, "timeout_s"),
        (form(part("file", picture(1), "a"), part("timeout_s", b"1e300")), 400, "timeout_s"),
        (form(part("file", picture(1), "a"), part("timeout_s", b"1"), part("timeout_s", b"1")), 400, "given twice"),
        (form(part("file", picture(1), "a"), part("job_id", bytes(9000))), 400, "job_id: longer than"),
        (form(part("file", picture(1), "a"), part("job_id", b"\xff")), 400, "no form"),
        (form(part("file", picture(1), "a", "Content-Transfer-Encoding: base64")), 400, "sent as they are"),
        (form(part("file", picture(1), "a", "Content-Encoding: gzip")), 400, "sent as they are"),
        (form(*(part("file", picture(n), "a") for n in range(5))), 400, "too many parts"),
        (form(part("file", picture(1), "a"), *(part(f"f{n}", b"") for n in range(80))), 400, "too many parts"),
        (form(part("file", b"x", None, "Content-Type: multipart/mixed; boundary=YY")), 400, "form"),
        (form(part("file", bytes(300_000), "a")), 413, "larger than the limit"),
        (form(part("url", b"a" * 300_000)), 413, "larger than the limit"),
        (form(part("file", picture(1), "a"))[:-30], 400, "no form"),
        (b"", 400, "no form"),
        (b"nothing like it", 400, "no form"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,
)
async def test_a_form_that_cannot_be_read_is_a_problem(body: bytes, status: int, words: str) -> None:
    async with serve(max_sources=4, max_image_bytes=1024, max_message_bytes=2**17) as http:
        answered = await post(http, body, MULTIPART)
        assert (answered[0], answered[1].get("status")) == (status, status), answered
        assert words in answered[1]["detail"]
        assert len(answered[1]["detail"]) < 1000
        assert (await post(http, form(part("file", picture(1), "a")), MULTIPART))[0] == 200


async def test_a_form_without_a_boundary_is_a_problem() -> None:
    async with serve() as http:
        status, answer = await post(http, form(part("file", picture(1), "a")), {"Content-Type": "multipart/form-data"})
    assert (status, answer["reason"]) == (400, "INVALID_OPTION")


async def test_options_stand_in_the_url_or_in_the_form_not_in_both() -> None:
    body = form(part("file", picture(1), "a"), part("confidence", b"0.5"))
    async with serve() as http:
        assert (await post(http, body, MULTIPART, "?iou=0.5"))[0] == 200
        status, answer = await post(http, body, MULTIPART, "?confidence=0.4")
        assert (status, answer["detail"]) == (400, "confidence: given twice")
        status, answer = await post(http, b'{"sources": []}', CURL, "?confidence=0.4")
        assert (status, answer["detail"]) == (400, "confidence: options of a JSON request go into its body")


async def test_an_image_in_a_form_that_is_too_large_fails_alone() -> None:
    body = form(part("file", picture(1), "good"), part("file", picture(2, size_bytes=2000), "large"))
    async with serve(max_image_bytes=1024) as http:
        status, answer = await post(http, body, MULTIPART)
    assert (status, [result["status"] for result in answer]) == (200, ["ok", "failed"])
    assert answer[1]["error"]["reason"] == "IMAGE_TOO_LARGE"


TAILS = (b"\r\n--X\r", b"\r\n\r\n\r\n", b"--XX--", b"\r\n--XY")


async def test_the_images_of_a_form_are_cut_out_byte_for_byte() -> None:
    """Line ends, and what looks like the boundary, at every place around the edges of chunks."""
    images = [picture(n, size_bytes=size) for n, size in enumerate((2**18 - 1, 2**18, 2**18 + 1, 3 * 2**18 + 7))]
    tricky = [image[:-6] + tail for image, tail in zip(images, TAILS, strict=True)]
    async with serve() as http:
        for image in tricky:
            async with http.session.post(
                f"{http.url}/v1/process", data=form(part("file", image, "a")), headers=MULTIPART
            ) as response:
                first = json.loads((await response.text()).splitlines()[0])
            assert int(first["source_ready"]["size_bytes"]) == len(image)


async def test_a_form_waits_for_room_before_it_is_read_and_keeps_none() -> None:
    body = form(part("file", picture(1, size_bytes=8 * MIB), "a"))
    async with serve(memory_bytes=512 * MIB) as http:
        budget = http.cluster.service.budget
        with budget.account() as other:
            other.add(budget.limit_bytes(Phase.DOOR, Priority.NORMAL) - 4 * MIB, Phase.DOOR)
            assert (await post(http, body, MULTIPART, "?timeout_s=0.2"))[0] == 504
        assert (await post(http, body, MULTIPART))[0] == 200
        await http.until_free()


async def test_a_form_that_does_not_come_in_time_is_not_waited_for() -> None:
    head = "POST /v1/process?timeout_s=0.2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n"
    async with serve() as http:
        reader, writer = await asyncio.open_connection("127.0.0.1", http.port.port)
        writer.write(f"{head}Content-Type: {MULTIPART['Content-Type']}\r\n\r\n".encode() + part("file", b"begun", "a"))
        answer = (await reader.readuntil(b"}")).decode()
        assert answer.startswith("HTTP/1.1 504 ")
        assert await http.port.drain(30)
        writer.close()
