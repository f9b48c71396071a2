"""The cluster changes nothing: its boxes and strings are those of the two models called directly."""

import io
import os
from collections.abc import AsyncIterator

import numpy as np
import pytest
from direct_pipeline import DirectPipeline, Region, read_characters
from PIL import Image
from sluiceway_cluster import Cluster, plan_cluster
from sluiceway_runtime import weights

from sluiceway import AsyncClient

# A YOLO model: of a DB model, `test_detection_db` compares what is found with a plain run.
DETECTOR = "text-nano"
SAMPLES = ("bus.jpg", "zidane.jpg", "page.png", "text.png")


def variants() -> dict[str, bytes]:
    """The samples, and what else changes shape or colour: turned, grey, small, wide."""
    files = {name: path.read_bytes() for name, path in weights.pull_samples(SAMPLES).items()}
    bus = Image.open(io.BytesIO(files["bus.jpg"]))
    page = Image.open(io.BytesIO(files["page.png"])).convert("RGB")
    wide = np.tile(np.asarray(page), (1, 3, 1))
    changed = {
        "bus, turned.png": bus.transpose(Image.Transpose.ROTATE_90),
        "bus, grey.png": bus.convert("L"),
        "page, twice as large.png": page.resize((page.width * 2, page.height * 2)),
        "page, three beside each other.bmp": Image.fromarray(wide),
    }
    for name, image in changed.items():
        buffer = io.BytesIO()
        image.save(buffer, name.rsplit(".", 1)[1].upper())
        files[name] = buffer.getvalue()
    return files


@pytest.fixture(scope="module")
def direct() -> DirectPipeline:
    recogniser = weights.resolve("ppocrv6-tiny", kind="recognition")
    return DirectPipeline(
        weights.resolve(DETECTOR, kind="detection").path,
        recogniser.path,
        read_characters(recogniser.files["config"]),
        precision="f32",
    )


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    # f32 on both sides: what is compared is the pipeline around the models, not the rounding of bf16.
    f32 = {
        "SLUICEWAY_DETECTION__MODEL": DETECTOR,
        "SLUICEWAY_DETECTION__PRECISION": "f32",
        "SLUICEWAY_RECOGNITION__MODELS": '[{"name": "ppocrv6-tiny", "precision": "f32"}]',
    }
    plan = plan_cluster(None, os.environ, free_ports=True, overrides=f32)
    async with Cluster(plan.servers), AsyncClient(plan.address) as client:
        yield client


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(0.0, width) * max(0.0, height)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


async def test_boxes_and_strings_are_those_of_the_models(client: AsyncClient, direct: DirectPipeline) -> None:
    words = 0
    for name, file in variants().items():
        expected: list[Region] = direct(file)
        found = (await client.process(file)).regions
        assert len(found) == len(expected), name
        left = list(expected)
        for region in found:
            twin = max(left, key=lambda other: iou(other.box, region.box))
            left.remove(twin)
            assert iou(twin.box, region.box) > 0.99, (name, twin, region)
            # Spaces that the crop shows and the network left out are put in; nothing is taken away.
            assert region.text.replace(" ", "") == twin.text.replace(" ", ""), (name, twin, region)
            assert region.text.count(" ") >= twin.text.count(" "), (name, twin, region)
            assert region.confidence == pytest.approx(twin.confidence, abs=1e-3), (name, twin, region)
            assert region.class_id == twin.class_id
            assert region.text_confidence == pytest.approx(twin.text_confidence, abs=1e-3), (name, twin, region)
        words += len(found)
    assert words > 200
