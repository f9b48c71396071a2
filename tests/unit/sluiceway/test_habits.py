"""The library as users of its neighbours know theirs: options by name, ids, metadata, notebooks, tables, versions."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import AsyncIterator
from importlib import metadata
from typing import Any

import grpc
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import sluiceway
from sluiceway import errors
from sluiceway.client import AsyncClient, Options, Priority, RetryPolicy, Source, to_pandas
from sluiceway.client.options import OptionFields
from sluiceway.client.sources import load_source

ONCE = RetryPolicy(attempts=1)


@pytest.fixture
async def client(server: Any) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.address, retry=ONCE, metadata={"x-team": "ocr"}) as made:
        yield made


def test_the_version() -> None:
    assert sluiceway.__version__ == metadata.version("sluiceway")


# --- options by name --------------------------------------------------------------------------------------------------


async def test_options_by_their_names(client: AsyncClient, server: Any) -> None:
    await client.process(b"x", confidence=0.25, classes=["textline", "image"], max_detections=7)
    coarse = Options(iou=0.5, confidence=0.75)
    await client.process(b"x", coarse, confidence=0.25, classes="textline", priority="bulk")
    async for _ in client.events(b"x", detect_only=True):
        pass
    async for _ in client.process_many([b"x"], image_size=640):
        pass
    sent = [request.options for request in server.fake.requests]
    assert (sent[0].detection.confidence, list(sent[0].detection.classes)) == (0.25, ["textline", "image"])
    assert sent[0].detection.max_detections == 7
    assert (sent[1].detection.confidence, sent[1].detection.iou) == (0.25, 0.5)
    assert list(sent[1].detection.classes) == ["textline"], "the name of one class is no list of letters"
    assert server.fake.metadata[1]["sluiceway-priority"] == Priority.BULK
    assert sent[2].detect_only
    assert sent[3].detection.image_size == 640


def test_every_option_can_be_given_by_its_name() -> None:
    assert set(OptionFields.__annotations__) == {field.name for field in dataclasses.fields(Options)}


async def test_an_option_that_does_not_exist(client: AsyncClient) -> None:
    with pytest.raises(TypeError, match="no option 'confidance', only confidence, iou"):
        await client.process(b"x", confidance=0.4)  # type: ignore[call-arg]


# --- ids and metadata -------------------------------------------------------------------------------------------------


async def test_a_request_id_is_sent_and_stands_on_errors(client: AsyncClient, server: Any, refusal: Any) -> None:
    result = await client.process(b"x", request_id="invoice-7")
    assert result.request_id == server.fake.metadata[0]["x-request-id"] == "invoice-7"
    with pytest.raises(errors.InvalidImage) as caught:
        await client.process(b"bad", request_id="invoice-8")
    assert caught.value.request_id == "invoice-8"
    server.fake.refusals = [refusal(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")]
    with pytest.raises(errors.Unavailable) as refused:
        [_ async for _ in client.events(b"x", request_id="invoice-9")]
    assert refused.value.request_id == "invoice-9"


async def test_without_one_one_is_made(client: AsyncClient, server: Any) -> None:
    first, second = await client.process(b"x"), await client.process(b"x")
    assert re.fullmatch("[0-9a-f]{16}", first.request_id)
    assert first.request_id != second.request_id
    assert server.fake.metadata[0]["x-request-id"] == first.request_id


async def test_each_of_many_has_its_own(client: AsyncClient, server: Any) -> None:
    results = [result async for result in client.process_many([b"x", b"bad"], request_id="night")]
    assert [result.request_id for result in results] == ["night.0", "night.1"]
    assert [job.job_id for job in server.fake.requests] == ["night.0", "night.1"], "what logs know them by"
    assert results[1].error is not None
    assert results[1].error.request_id == "night.1"
    assert results[1].to_dict()["error"] == {
        "code": "INVALID_ARGUMENT",
        "reason": "INVALID_IMAGE",
        "message": "not an image",
        "request_id": "night.1",
    }


@pytest.mark.parametrize("request_id", ["", "a b", "ü", "x" * 129, "a\n"])
async def test_ids_that_are_none(request_id: str, client: AsyncClient, server: Any) -> None:
    with pytest.raises(errors.InvalidOption, match="a request id is"):
        await client.process(b"x", request_id=request_id)
    with pytest.raises(errors.InvalidOption, match="a request id is"):
        client.process_many([b"x"], request_id=request_id)
    assert server.fake.requests == []


async def test_metadata_goes_with_every_call(client: AsyncClient, server: Any) -> None:
    await client.process(b"x")
    [_ async for _ in client.process_many([b"x"])]
    await client.describe()
    told = [*server.fake.metadata, *server.fake.metadata_of_questions]
    assert [one["x-team"] for one in told] == ["ocr"] * 3


@pytest.mark.parametrize(
    ("key", "value"),
    [("X-Team", "a"), ("", "a"), ("x team", "a"), ("grpc-x", "a"), ("x-bin", "a"), ("x", "ü"), ("x", "\n")],
)
async def test_metadata_that_no_header_can_hold(key: str, value: str) -> None:
    with pytest.raises(errors.InvalidOption, match="metadata"):
        AsyncClient("127.0.0.1:1", metadata={key: value})


# --- what people see --------------------------------------------------------------------------------------------------


async def test_results_are_shown_in_a_line(client: AsyncClient) -> None:
    result = await client.process(b"hello")
    assert repr(result) == "<Result '5 bytes' 100x50, 2 regions, 12 ms>"
    assert repr(result.regions[0]) == "<Region 1 textline 0.80 'hello' at (1.0, 2.0, 5.0, 4.0)>"
    [failed] = [item async for item in client.process_many([b"bad"])]
    assert repr(failed) == "<Result '3 bytes' failed: INVALID_IMAGE: not an image>"


async def test_notebooks_show_a_table_and_run_nothing(client: AsyncClient) -> None:
    shown = (await client.process(b"<script>x</script>"))._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert shown.count("<tr>") == 3
    assert "http" not in shown, "nothing is loaded"


async def test_tables_of_pandas(client: AsyncClient) -> None:
    results = [item async for item in client.process_many([b"hello", b"bad", b"tree"])]
    table = to_pandas(results)
    assert list(table.columns) == [
        "source", "page", "region", "parent", "step", "x0", "y0", "x1", "y1", "class", "confidence", "text",
        "text_confidence",
    ]  # fmt: skip
    assert len(table) == 2 + 4
    assert list(table["text"][:2]) == ["hello", "world"]
    assert table["x1"].dtype == "float64"
    assert table.groupby("source")["confidence"].max().loc["5 bytes"] == pytest.approx(0.9)
    assert isinstance(results[0].to_pandas(), pd.DataFrame)
    assert len(to_pandas([])) == 0


async def test_plain_data_is_whole(client: AsyncClient) -> None:
    plain = json.loads((await client.process(b"tree")).to_json())
    plate = next(item for item in plain["regions"] if item["id"] == 1)
    assert (plate["parent"], plate["step"], plate["text"]) == (0, "plates", "K-AB 1")
    assert "outline" not in plate, "turned by a right angle, it is the box"
    assert plate["values"] == {"owner": {"name": "Köln", "cars": [1, 2.5], "due": None}}
    assert plain["page_values"] == {"1": {"scene": {"labels": [{"class": "night", "confidence": 0.7}]}}}
    assert plain["values"] == {"book": {"id": 7}, "shop": {"price": 3, "sale": 0.5}}
    assert [model["name"] for model in plain["models"]] == ["one", "other"]


@pytest.mark.parametrize(("client_order", "own", "first"), [("bgr", None, 0), ("rgb", None, 255), ("bgr", "rgb", 255)])
def test_channels_are_as_they_are_said_to_be(client_order: Any, own: Any, first: int) -> None:
    array = np.zeros((2, 2, 3), np.uint8)
    array[..., 0] = 255
    loaded = load_source(Source(array, channels=own), channels=client_order)
    assert loaded.image is not None
    with Image.open(io.BytesIO(loaded.image)) as sent:
        assert np.asarray(sent)[0, 0, 0] == first
