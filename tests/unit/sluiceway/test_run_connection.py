"""How `run` reaches a cluster: client certificates, times, and the variable with its address."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from sluiceway.pipeline.v1 import pipeline_pb2_grpc

COMMAND = (sys.executable, "-m", "sluiceway.cli", "run")


@pytest.fixture
async def mutual(server: Any, tmp_path: Path) -> AsyncIterator[str]:
    """The same server once more, for those alone who show a certificate; returns its address."""
    authority = trustme.CA()
    own, client = authority.issue_cert("localhost"), authority.issue_cert("client")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    client.private_key_pem.write_to_path(str(tmp_path / "client.key"))
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "client.pem"))
    credentials = grpc.ssl_server_credentials(
        [(own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())],
        root_certificates=authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    second = grpc.aio.server()
    pipeline_pb2_grpc.add_PipelineServiceServicer_to_server(server.fake, second)
    port = second.add_secure_port("localhost:0", credentials)
    await second.start()
    yield f"localhost:{port}"
    await second.stop(None)


async def run(*arguments: object, **variables: str) -> tuple[int, list[Any], str]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *map(str, arguments),
        "--json",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | variables,
    )
    out, err = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "hello.png"
    path.write_bytes(b"hello")
    return path


async def test_a_client_certificate(mutual: str, server: Any, image: Path, tmp_path: Path) -> None:
    where = ("--address", mutual, "--ca", tmp_path / "ca.pem")
    shown = ("--cert", tmp_path / "client.pem", "--key", tmp_path / "client.key")
    code, [item], said = await run(image, *where, *shown, "--timeout", 1.5)
    assert (code, item["status"]) == (0, "ok"), said
    assert server.fake.requests[0].timeout.ToMilliseconds() == 1500
    code, [item], _ = await run(image, *where, "--patience", 2)
    assert (code, item["error"]["code"]) == (1, "UNAVAILABLE"), "nobody who shows none"


async def test_what_detection_is_asked_for_reaches_the_server(server: Any, image: Path) -> None:
    where = ("--address", server.address)
    code, _, said = await run(image, *where, "--class-agnostic", "--iou", 0.5)
    assert code == 0, said
    assert (await run(image, *where))[0] == 0
    asked, plain = (request.options.detection for request in server.fake.requests)
    assert (asked.class_agnostic, asked.iou) == (True, 0.5)
    assert not plain.HasField("class_agnostic"), "what nobody asks for is for the stage to say"


async def test_the_variable_with_the_address(server: Any, image: Path) -> None:
    code, [item], said = await run(image, SLUICEWAY_ADDRESS=server.address)
    assert (code, item["regions"][0]["text"]) == (0, "hello"), said
