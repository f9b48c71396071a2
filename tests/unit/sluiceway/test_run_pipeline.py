"""`run` against a scripted server: which pipeline, and with which parameters."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest


async def run(*arguments: str) -> tuple[int | None, str, str]:
    # A process of its own: the command takes over the signals of the thread that it runs in.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sluiceway.cli", "run", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, complained = await asyncio.wait_for(process.communicate(), 50)
    return process.returncode, said.decode(), complained.decode()


async def test_a_pipeline_by_name_with_its_parameters(server: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"tree")
    name = str(tmp_path / "a.png")
    code, said, complained = await run(
        name,
        "--address",
        server.address,
        "--json",
        "--pipeline",
        "parking",
        "--param",
        "country=DE",
        "--param",
        "q=a=b",
    )
    assert code == 0, complained
    shown = json.loads(said)
    assert (shown["source"], [region["parent"] for region in shown["regions"]]) == (name, [None, 0, 0, None])
    job = server.fake.requests[0]
    assert (job.pipeline, dict(job.sources[0].params)) == ("parking", {"country": "DE", "q": "a=b"})


async def test_no_pipeline_is_the_servers_own(server: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"hello")
    code, said, complained = await run(str(tmp_path / "a.png"), "--address", server.address)
    assert code == 0, complained
    assert [line.split()[0] for line in said.splitlines()[2:5]] == ["text", "hello", "world"]
    assert server.fake.requests[0].pipeline == ""


@pytest.mark.parametrize(("typed", "asked"), [("auto", "auto"), ("fast", "fast"), ("0.5", "0.5"), ("1", "1.0")])
async def test_how_large_the_detector_sees_an_image(server: Any, tmp_path: Path, typed: str, asked: str) -> None:
    (tmp_path / "a.png").write_bytes(b"hello")
    code, _, complained = await run(str(tmp_path / "a.png"), "--address", server.address, "--scale", typed)
    assert code == 0, complained
    assert server.fake.requests[0].options.detection.scale == asked


async def test_a_scale_that_was_not_asked_for_is_the_servers_own(server: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"hello")
    code, _, complained = await run(str(tmp_path / "a.png"), "--address", server.address)
    assert code == 0, complained
    assert not server.fake.requests[0].options.detection.HasField("scale")
