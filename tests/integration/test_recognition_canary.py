"""A canary of recognition: two real servers with other readers behind one stage. Each source is read by one of them."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from foreign_readers import ForeignReader
from one_address import OneAddress
from recognition_serving import running
from sluiceway_orchestrator.testing import Cluster, FakeDetection, SourceEvents, picture
from waiting import until

from sluiceway.common.v1 import crop_pb2
from sluiceway.pipeline.v1 import pipeline_pb2

REGIONS = 6
SOURCES = 40


@dataclass(frozen=True)
class Version:
    """One reader: its network, and what its classes mean."""

    name: str
    network: ForeignReader
    alphabet: str

    def table(self, folder: Path) -> dict[str, object]:
        """`[[recognition.models]]` of it."""
        height, width = self.network.size
        return {
            "name": "reader",
            "weights": str(self.network.save(folder / f"{height}.onnx")),
            "version": self.name,
            "height": height,
            "max_width": width,
            "buckets": [width],
            "alphabet": self.alphabet,
            "precision": "f32",
            "upright": "none",
        }

    def read(self, number: int, region: int) -> str:
        """What is written in a region of a picture, in its letters."""
        return "".join(self.alphabet[digit] for digit in digits(number, region))


SMALL = ForeignReader(("", *"abcdefgh"), (48, 160))
FLAT = ForeignReader(("", *"abcdefgh"), (32, 128))
STABLE = Version("1", SMALL, "abcdefgh")
CANARIES = {
    # The same file, whose classes become other letters; and another network, which wants other crops.
    "reading": Version("2", SMALL, "stuvwxyz"),
    "network": Version("2", FLAT, "ABCDEFGH"),
}


def digits(number: int, region: int) -> list[int]:
    """Four in base 8, different in every region of every picture."""
    code = number * REGIONS + region
    return [code // 8**place % 8 for place in (3, 2, 1, 0)]


class Drawing(FakeDetection):
    """Finds regions in which something is written, and cuts them as their reader wants them."""

    async def Detect(self, request: Any, context: Any) -> Any:
        answer = await super().Detect(request, context)
        networks = {spec.name: {48: SMALL, 32: FLAT}[spec.height] for spec in request.crop_specs}
        for crop in answer.crops:
            network = networks[crop.spec]
            text = "".join(network.classes[1 + digit] for digit in digits(*struct.unpack_from(">II", crop.raw.data)))
            pixels = network.draw(text)
            height, width = pixels.shape[:2]
            raw = crop_pb2.RawImage(height=height, width=width, format=crop_pb2.PIXEL_FORMAT_BGR, data=pixels.tobytes())
            crop.raw.CopyFrom(raw)
        return answer


def version_of(source: SourceEvents, number: int, versions: dict[str, Version]) -> str:
    """By which version a source was read: all of it, each region once, and as the answer says."""
    assert source.error is None, source.error
    assert not source.region_errors
    assert source.done is not None
    (report,) = [report for report in source.done.steps if report.step == "words"]
    (model,) = report.models
    texts = {region: value.text.text for (_, region), value in source.values.items()}
    assert texts == {region: versions[model.version].read(number, region) for region in range(REGIONS)}
    return model.version


@pytest.mark.parametrize("canary", CANARIES.values(), ids=CANARIES)
@pytest.mark.parametrize("behind_one_address", [False, True], ids=["list", "one address"])
async def test_each_source_is_read_by_one_version_also_when_one_leaves(
    canary: Version, behind_one_address: bool, tmp_path: Path
) -> None:
    versions = {version.name: version for version in (STABLE, canary)}
    read: Counter[str] = Counter()
    async with (
        running(models=[STABLE.table(tmp_path)]) as (one, staying),
        running(models=[canary.table(tmp_path)]) as (other, leaving),
        OneAddress() as behind,
    ):
        assert one.group != other.group
        addresses = [f"127.0.0.1:{server.port}" for server in (staying, leaving)]
        behind.servers += addresses
        target = behind.address if behind_one_address else ",".join(addresses)
        async with Cluster([Drawing()], recognition=target) as cluster:
            stage = cluster.service.stages["recognition"]
            known = 1 if behind_one_address else 2
            await until(lambda: sum(bool(found) for _, found in stage.members) >= known)

            async def process(number: int) -> None:
                source = pipeline_pb2.Source(image=picture(number, regions=REGIONS))
                heard = (await cluster.process(source, timeout_s=60))["0"]
                read[version_of(heard, number, versions)] += 1
                if number == SOURCES // 2:
                    # As an exchange does it, with sources under way in it.
                    behind.servers.remove(addresses[1])
                    await leaving.stop()

            places = asyncio.Semaphore(4)

            async def in_turn(number: int) -> None:
                async with places:
                    await process(number)

            await asyncio.gather(*(in_turn(number) for number in range(SOURCES)))
    assert read.total() == SOURCES
    assert read["1"] >= SOURCES // 2 - 4
    if not behind_one_address:
        # Half of what came until one of them left.
        assert read["2"] >= SOURCES // 4 - 4
