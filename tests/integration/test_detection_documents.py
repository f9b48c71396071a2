"""Documents at a detection server with real worker processes, on a tiny model."""

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from pdf_files import pdf_of
from PIL import Image
from sluiceway_detection.config import DetectionConfig
from sluiceway_detection.front.service import DetectionService
from sluiceway_runtime.server.app import Server
from sluiceway_runtime.server.main import Installation
from sluiceway_runtime.server.security import Security
from sluiceway_runtime.server.status import from_rpc_error

from sluiceway.common.v1 import crop_pb2, model_pb2
from sluiceway.detection.v1 import detection_pb2 as pb
from sluiceway.detection.v1 import detection_pb2_grpc

MODELS = Path(__file__).parents[1] / "unit" / "detection" / "models"
LOW = pb.DetectOptions(confidence=0.4, iou=0.5)
PICTURE = np.load(MODELS / "yolo11-pico.npz")["image"]
SPEC = crop_pb2.CropSpec(name="text", height=16, max_width=64)


def tiff(pages: int) -> bytes:
    images = [Image.fromarray(np.roll(PICTURE[:, :, ::-1], 4 * page, axis=0)) for page in range(pages)]
    out = io.BytesIO()
    images[0].save(out, "tiff", save_all=True, append_images=images[1:], compression="tiff_lzw")
    return out.getvalue()


@pytest.fixture
async def stub() -> AsyncIterator[Any]:
    values = {
        "port": 0,
        "operations_port": 0,
        "drain_notice_s": 0,
        "model": str(MODELS / "yolo11-pico.onnx"),
        "shapes": ["96x64", "64x96"],
        "precision": "f32",
        "workers": 2,
        "max_image_pixels": 10**6,
        "max_document_pages": 30,
        "page_timeout_s": 0.5,
    }
    config = DetectionConfig.model_validate(values)
    server = Server(DetectionService(config, Installation({}, Security(), {})), config)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield detection_pb2_grpc.DetectionServiceStub(channel)
    await server.stop()


async def pages(stub: Any, document: bytes, **options: Any) -> dict[int, pb.DetectPagesResponse]:
    told: dict[int, pb.DetectPagesResponse] = {}
    request = pb.DetectPagesRequest(document=document, options=LOW, crop_specs=[SPEC], **options)
    async for response in stub.DetectPages(request, timeout=60):
        assert response.page not in told, "a page came twice"
        told[response.page] = response
    return told


async def test_pages_of_a_tiff_are_what_its_pictures_are(stub: Any) -> None:
    told = await pages(stub, tiff(9))
    assert sorted(told) == list(range(9))
    for number, response in told.items():
        out = io.BytesIO()
        Image.fromarray(np.roll(PICTURE[:, :, ::-1], 4 * number, axis=0)).save(out, "png")
        alone = await stub.Detect(pb.DetectRequest(image=out.getvalue(), options=LOW, crop_specs=[SPEC]))
        assert response.page_count == 9
        found = response.found
        assert list(found.detections) == list(alone.detections)
        assert list(found.crops) == list(alone.crops)
        assert (found.width, found.height, found.model) == (alone.width, alone.height, alone.model)
        assert found.timings.compute_ms > 0
        assert found.load.capacity == 2


async def test_ranges_and_what_is_left_out(stub: Any) -> None:
    document = tiff(9)
    assert sorted(await pages(stub, document, first_page=4)) == [4, 5, 6, 7, 8]
    assert sorted(await pages(stub, document, first_page=2, max_pages=3, except_pages=[3])) == [2, 4]
    assert await pages(stub, document, first_page=20, max_pages=3) == {}


async def test_pages_of_a_pdf_and_those_that_fail(stub: Any) -> None:
    told = await pages(stub, pdf_of(["a"] * 6, damaged={0, 3}, slow={4}))
    assert sorted(told) == list(range(6))
    assert {number: response.error.reason for number, response in told.items() if response.HasField("error")} == {
        0: "INVALID_IMAGE",
        3: "INVALID_IMAGE",
        4: "IMAGE_TOO_LARGE",
    }
    page = told[1].found
    # No more pixels than an image may have.
    assert 900_000 < page.width * page.height <= 10**6


async def test_text_of_a_page_is_handed_out_where_that_is_asked_for(stub: Any) -> None:
    document = pdf_of(["first line\nsecond line", "", "third"])
    told = await pages(stub, document, text_layer=model_pb2.TEXT_LAYER_PREFER)
    texts = {number: [text.text for text in response.texts] for number, response in told.items()}
    assert texts == {0: ["first line", "second line"], 1: [], 2: ["third"]}
    for number in (0, 2):
        found = told[number].found
        assert len(found.detections) == len(told[number].texts)
        assert {item.class_name for item in found.detections} == {"0"}
        assert not found.crops
        assert found.width * found.height <= 10**6
    ignored = await pages(stub, document)
    assert not any(response.texts for response in ignored.values())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pages(stub, document, text_layer=77)
    assert from_rpc_error(caught.value).reason == "INVALID_OPTION"


@pytest.mark.parametrize(
    ("document", "reason", "words"),
    [
        (b"", "INVALID_IMAGE", "no document"),
        (b"hello", "INVALID_IMAGE", "not a JPEG"),
        (pdf_of(["a"], password="p"), "INVALID_IMAGE", "encrypted"),
        (pdf_of(["a"])[:300], "INVALID_IMAGE", "damaged"),
        (pdf_of(["a"] * 31), "IMAGE_TOO_LARGE", "more than 30 pages"),
        (tiff(31), "IMAGE_TOO_LARGE", "more than 30 pages"),
    ],
    ids=["empty", "text", "encrypted", "cut off", "many pages", "many pictures"],
)
async def test_documents_that_are_refused(stub: Any, document: bytes, reason: str, words: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pages(stub, document)
    error = from_rpc_error(caught.value)
    assert error.reason == reason
    assert words in error.message


async def test_pages_are_shown_at_the_scales_that_are_asked_for(stub: Any) -> None:
    fast = pb.DetectPagesRequest(document=tiff(2), options=pb.DetectOptions(confidence=0.4, iou=0.5, scale="fast"))
    told = {response.page: response.found.detections async for response in stub.DetectPages(fast, timeout=60)}
    assert told == {page: response.found.detections for page, response in (await pages(stub, tiff(2))).items()}
    parts = pb.DetectPagesRequest(document=tiff(2), options=pb.DetectOptions(scale="2"))
    shown = {response.page async for response in stub.DetectPages(parts, timeout=60)}
    assert shown == set(told)
    unknown = pb.DetectPagesRequest(document=tiff(2), options=pb.DetectOptions(scale="large"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(stub.DetectPages(unknown, timeout=60)))
    assert from_rpc_error(caught.value).metadata["option"] == "scale"


async def test_an_image_is_a_document_of_one_page_and_a_document_no_image(stub: Any) -> None:
    out = io.BytesIO()
    Image.fromarray(PICTURE[:, :, ::-1]).save(out, "png")
    told = await pages(stub, out.getvalue())
    assert [response.page_count for response in told.values()] == [1]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Detect(pb.DetectRequest(image=pdf_of(["a"])))
    assert "PDF document" in from_rpc_error(caught.value).message


async def test_it_says_what_it_reads(stub: Any) -> None:
    said = await stub.Describe(pb.DescribeRequest())
    assert (said.max_document_pages, said.document_dpi) == (30, 200)
