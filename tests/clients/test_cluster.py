"""Every client against the real cluster, over TLS and with a token: the same images give the same boxes and strings."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format
from PIL import Image, ImageDraw, ImageFont

from sluiceway.client import Client, Result, Tls
from sluiceway.common.v1 import geometry_pb2
from tests.clients.conftest import Output, code_name, run_client
from tests.clients.test_triton import upright
from tests.e2e.conftest import COMMAND, Starter, Up

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

TOKEN = "a-token-of-a-test"
# Printed with two and four digits; a tie may be rounded either way.
BOX_PX, CONFIDENCE = 0.011, 0.00011


@pytest.fixture(scope="session")
def cluster(certificates: Path) -> Iterator[Up]:
    """A cluster with TLS everywhere, certificates between its servers, and tokens."""
    starter = Starter()
    yield starter(
        SLUICEWAY_SECURITY__CERTIFICATE=str(certificates / "server.pem"),
        SLUICEWAY_SECURITY__KEY=str(certificates / "server.key"),
        SLUICEWAY_SECURITY__CA=str(certificates / "ca.pem"),
        SLUICEWAY_SECURITY__CLIENTS__TESTER__TOKEN_ENV="CLIENT_TOKEN",
        SLUICEWAY_SECURITY__CLIENTS__ORCHESTRATOR__TOKEN_ENV="STAGE_TOKEN",
        SLUICEWAY_SECURITY__STAGE_TOKEN_ENV="STAGE_TOKEN",
        CLIENT_TOKEN=TOKEN,
        STAGE_TOKEN="another-token-of-a-test",
        # A shape that comes often gets a graph of its own, which rounds in another way: in bf16 that can be seen.
        SLUICEWAY_DETECTION__PRECISION="f32",
        SLUICEWAY_DETECTION__WORKERS="1",
        SLUICEWAY_RECOGNITION__WORKERS="1",
    )
    starter.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six images of as many kinds: photograph, page, lossless copy, turned by EXIF, rendered, and one without text."""
    folder = tmp_path_factory.mktemp("pictures")
    command = [*COMMAND, "samples", "pull", "bus.jpg", "page.png", "--to", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    with Image.open(folder / "page.png") as page:
        page.convert("RGB").save(folder / "page.webp", lossless=True)
        turned = page.convert("RGB").rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise
    turned.save(folder / "turned.jpg", quality=95, exif=exif)
    rendered = Image.new("RGB", (640, 200), "white")
    draw = ImageDraw.Draw(rendered)
    for row, text in enumerate(("INVOICE 2024-11", "Total 1,234.50")):
        draw.text((30, 20 + 80 * row), text, fill="black", font=ImageFont.load_default(48))
    rendered.save(folder / "rendered.bmp")
    Image.new("RGB", (320, 240), "gray").save(folder / "blank.png")
    names = ("bus.jpg", "page.png", "page.webp", "turned.jpg", "rendered.bmp", "blank.png")
    return [folder / name for name in names]


@pytest.fixture(scope="session")
def expected(cluster: Up, certificates: Path, pictures: list[Path]) -> dict[str, Result]:
    """What the Python client gets, by file name."""
    address = cluster.address.replace("127.0.0.1", "localhost")
    with Client(address, tls=Tls(ca=certificates / "ca.pem"), token=TOKEN) as client:
        return {picture.name: client.process(picture) for picture in pictures}


@pytest.fixture(scope="session")
def options(certificates: Path) -> tuple[str, ...]:
    """How a client shows and checks who is there."""
    return ("--ca", str(certificates / "ca.pem"), "--timeout", "60")


def compare(output: Output, expected: dict[str, Result]) -> None:
    """Every region of every image: the same box, class, confidence and text."""
    assert output.exit_code == 0, output
    assert {line[0] for line in output.of("done")} == set(expected)
    for name, result in expected.items():
        boxes = {int(line[1]): line[2:] for line in output.of("box") if line[0] == name}
        outlines = {int(line[1]): line[2:] for line in output.of("outline") if line[0] == name}
        texts = {int(line[1]): line[2:] for line in output.of("text") if line[0] == name}
        turned = {region.id for region in result.regions if "outline" in region.to_dict()}
        assert outlines.keys() == turned
        assert boxes.keys() == {region.id for region in result.regions} - turned
        assert texts.keys() == {region.id for region in result.regions if region.text is not None}
        (order,) = (line[1] for line in output.of("done") if line[0] == name)
        assert order == " ".join(str(region.id) for region in result.regions)
        for region in result.regions:
            shown, class_name, confidence = (boxes | outlines)[region.id]
            corners = [number for corner in region.outline for number in corner]
            numbers = corners if region.id in turned else region.box
            assert [float(number) for number in shown.split()] == pytest.approx(numbers, abs=BOX_PX)
            assert class_name == region.class_name
            assert float(confidence) == pytest.approx(region.confidence, abs=CONFIDENCE)
            if region.text is not None:
                assert texts[region.id][1] == region.text
                assert float(texts[region.id][0]) == pytest.approx(region.text_confidence, abs=CONFIDENCE)


def test_the_pictures_are_worth_comparing(expected: dict[str, Result]) -> None:
    assert not expected["blank.png"].regions
    assert "1,234.50" in expected["rendered.bmp"].text
    assert len(expected["page.png"].text.split()) >= 40
    assert "Region-based" in expected["page.png"].text
    assert expected["turned.jpg"].width == expected["page.png"].width
    assert expected["bus.jpg"].regions


@pytest.mark.parametrize("mode", [(), ("--bulk", "2")], ids=["one job", "stream"])
def test_gets_what_the_python_client_gets(
    program: Path,
    mode: tuple[str, ...],
    cluster: Up,
    options: tuple[str, ...],
    pictures: list[Path],
    expected: dict[str, Result],
) -> None:
    address = cluster.address.replace("127.0.0.1", "localhost")
    compare(run_client(program, *options, *mode, *pictures, server=address, token=TOKEN), expected)


def test_http_gives_what_the_python_client_gets(
    cluster: Up, certificates: Path, pictures: list[Path], expected: dict[str, Result]
) -> None:
    trust = ssl.create_default_context(cafile=certificates / "ca.pem")
    url = f"https://{cluster.http.replace('127.0.0.1', 'localhost')}/v1/process"
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "image/*", "X-Request-Id": "over-http"}
    for picture in pictures:
        request = urllib.request.Request(url, picture.read_bytes(), headers)
        with urllib.request.urlopen(request, timeout=60, context=trust) as answer:
            events = [json.loads(line) for line in answer]
        found = {item["id"]: item for event in events for item in event.get("regions", {}).get("regions", ())}
        read = [item for event in events for item in event.get("values", {}).get("values", ())]
        texts = {item["region_id"]: item["text"]["text"] for item in read}
        result = expected[picture.name]
        assert next(event["done"]["reading_order"] for event in events if "done" in event) == [
            region.id for region in result.regions
        ]
        assert texts == {region.id: region.text for region in result.regions if region.text is not None}
        for region in result.regions:
            geometry = json_format.ParseDict(found[region.id]["geometry"], geometry_pb2.Geometry())
            assert upright(geometry) == pytest.approx(region.box, abs=BOX_PX)
            assert found[region.id]["confidence"] == pytest.approx(region.confidence, abs=CONFIDENCE)


def test_a_wrong_token_is_refused(program: Path, cluster: Up, options: tuple[str, ...], pictures: list[Path]) -> None:
    address = cluster.address.replace("127.0.0.1", "localhost")
    output = run_client(program, *options, pictures[-1], server=address, token="wrong")
    assert output.exit_code == 1, output
    assert code_name(output.of("error")[0][0]) == "unauthenticated"


def test_what_is_no_image_fails_alone(
    program: Path, cluster: Up, options: tuple[str, ...], pictures: list[Path], tmp_path: Path
) -> None:
    text = tmp_path / "notes.png"
    text.write_text("not an image")
    address = cluster.address.replace("127.0.0.1", "localhost")
    output = run_client(program, *options, text, pictures[-1], server=address, token=TOKEN)
    assert output.exit_code == 1
    assert [line[:2] for line in output.of("failed")] == [["notes.png", "INVALID_IMAGE"]]
    assert [line[0] for line in output.of("done")] == ["blank.png"]
