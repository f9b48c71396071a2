"""A whole cluster with TLS, mutual TLS between its servers, and tokens: who gets in, who does not, and what is told."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from ledger_models import Deed, draw
from PIL import Image, PngImagePlugin
from server_processes import Fleet, Member
from waiting import wait_until

from sluiceway import AsyncClient, errors
from sluiceway.client.options import Tls

pytestmark = pytest.mark.timeout(400)

# Each is looked for, later, wherever it must not be.
TOKEN, STAGE_TOKEN, SECRET = "canary-token-of-alice", "canary-token-of-a-stage", "canary-secret-of-an-api"
PICTURE = "canary-inside-the-picture"
NUMBER = 1_234_567_891
TEXT = f"{NUMBER}:0"


@dataclass
class Secured:
    """The cluster, and the files of its certificates."""

    detection: Member
    recognition: Member
    orchestrator: Member
    folder: Path

    @property
    def members(self) -> dict[str, Member]:
        return {"detection": self.detection, "recognition": self.recognition, "orchestrator": self.orchestrator}

    @property
    def tls(self) -> Tls:
        return Tls(ca=self.folder / "ca.pem")

    @asynccontextmanager
    async def channel(self, member: Member, names: str = "server") -> AsyncIterator[grpc.aio.Channel]:
        """A connection that shows a certificate of the cluster's authority, or another one by name."""
        key, chain = (self.folder / f"{names}.{end}" for end in ("key", "pem"))
        credentials = grpc.ssl_channel_credentials(
            (self.folder / "ca.pem").read_bytes(), key.read_bytes(), chain.read_bytes()
        )
        async with grpc.aio.secure_channel(f"localhost:{member.port}", credentials) as channel:
            yield channel


def issue(authority: trustme.CA, folder: Path, name: str) -> None:
    issued = authority.issue_cert("localhost", "127.0.0.1")
    (folder / f"{name}.key").write_bytes(issued.private_key_pem.bytes())
    (folder / f"{name}.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issue(authority, folder, "server")
    issue(trustme.CA(), folder, "stranger")
    clients = {"alice": {"token_sha256": sha256(TOKEN)}, "stages": {"token_env": "STAGE_TOKEN"}}
    environment = {
        "SLUICEWAY_SECURITY__CERTIFICATE": str(folder / "server.pem"),
        "SLUICEWAY_SECURITY__KEY": str(folder / "server.key"),
        "SLUICEWAY_SECURITY__CA": str(folder / "ca.pem"),
        "SLUICEWAY_SECURITY__CLIENTS": json.dumps(clients),
        "SLUICEWAY_SECURITY__STAGE_TOKEN_ENV": "STAGE_TOKEN",
        "STAGE_TOKEN": STAGE_TOKEN,
        "API_SECRET": SECRET,
    }
    (folder / "sluiceway.toml").write_text(
        '[api.pictures]\nurl = "https://api.invalid/{id}"\nparams = ["id"]\nsecrets = {KEY = "API_SECRET"}\n'
        'headers = {Authorization = "Bearer {secret.KEY}"}\nretries = 0\n'
    )
    debug = {section: {"LOG_LEVEL": "debug"} for section in ("detection", "recognition", "orchestrator")}
    with Fleet(folder) as fleet:
        (detection,), (recognition,), orchestrator = fleet.cluster(settings=debug, environment=environment)
        yield Secured(detection, recognition, orchestrator, folder)


async def test_works_end_to_end(cluster: Secured) -> None:
    """Client to orchestrator with TLS and token; orchestrator to stages with its certificate and the stages' token."""
    async with AsyncClient(cluster.orchestrator.address, tls=cluster.tls, token=TOKEN) as client:
        result = await client.process(draw(7, 3))
        assert sorted(region.text or "" for region in result.regions) == ["7:0", "7:1", "7:2"]
        description = await client.describe()
        assert all(endpoint.ready for stage in description.stages for endpoint in stage.endpoints)


async def methods_of(channel: grpc.aio.Channel) -> list[tuple[str, bool, bool]]:
    """Every RPC of a server as it says itself: path, and which sides stream."""
    ask = reflection_pb2.ServerReflectionRequest
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        metadata=(("authorization", f"Bearer {TOKEN}"),)
    )
    await call.write(ask(list_services=""))
    names = [service.name for service in (await call.read()).list_services_response.service]
    found, pool = [], descriptor_pool.DescriptorPool()

    # An answer may bring the files that a file needs along.
    known: set[str] = set()

    async def add(request: reflection_pb2.ServerReflectionRequest) -> None:
        await call.write(request)
        for data in (await call.read()).file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            if file.name in known:
                continue
            known.add(file.name)
            for dependency in file.dependency:
                await add(ask(file_by_filename=dependency))
            pool.AddSerializedFile(data)

    for name in names:
        await add(ask(file_containing_symbol=name))
        service = pool.FindServiceByName(name)
        found += [(f"/{name}/{m.name}", m.client_streaming, m.server_streaming) for m in service.methods]
    call.cancel()
    return found


async def _silent() -> AsyncIterator[bytes]:
    """A stream without a message: one sent into a call that the server has ended fails at the client, as INTERNAL."""
    await asyncio.Event().wait()
    yield b""


async def answer_of(
    channel: grpc.aio.Channel, path: str, client_streams: bool, server_streams: bool, metadata: Any
) -> grpc.aio.AioRpcError | bytes | None:
    kind = {
        (False, False): channel.unary_unary, (False, True): channel.unary_stream,
        (True, False): channel.stream_unary, (True, True): channel.stream_stream,
    }[client_streams, server_streams]  # fmt: skip
    call = kind(path)(_silent() if client_streams else b"", metadata=metadata, timeout=30)
    try:
        return await call.read() if server_streams else await call
    except grpc.aio.AioRpcError as error:
        return error
    finally:
        call.cancel()


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", f"Basic {TOKEN}", f"Bearer {sha256(TOKEN)}"])
@pytest.mark.parametrize("section", ["detection", "recognition", "orchestrator"])
async def test_without_a_valid_token_every_rpc_of_every_server_says_so_and_nothing_else(
    cluster: Secured, section: str, authorization: str | None
) -> None:
    metadata = (("authorization", authorization),) if authorization else ()
    async with cluster.channel(cluster.members[section]) as channel:
        methods = await methods_of(channel)
        services = {path.split("/")[1] for path, *_ in methods}
        assert {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} < services
        assert sum(path.endswith("/Describe") for path, *_ in methods) == 1
        unknown = ("/no.such.Service/Method", False, False)
        for path, client_streams, server_streams in (*methods, unknown):
            answer = await answer_of(channel, path, client_streams, server_streams, metadata)
            assert isinstance(answer, grpc.aio.AioRpcError), path
            assert answer.code() is grpc.StatusCode.UNAUTHENTICATED, path
            assert answer.details() == "a valid bearer token is needed"
            assert not answer.initial_metadata(), path
            # The id under which the refusal stands in the log says nothing of the server.
            assert {key for key, _ in answer.trailing_metadata() or ()} <= {"grpc-status-details-bin", "x-request-id"}


async def test_a_token_of_one_kind_of_caller_is_not_asked_of_another_server(cluster: Secured) -> None:
    """The stage token opens the orchestrator as well: it is a client like any other, and named so in the limits."""
    async with AsyncClient(cluster.orchestrator.address, tls=cluster.tls, token=STAGE_TOKEN) as client:
        assert (await client.process(draw(8, 1))).ok
    async with AsyncClient(cluster.orchestrator.address, tls=cluster.tls) as client:
        with pytest.raises(errors.Unauthenticated):
            await client.process(draw(9, 1))


@pytest.mark.parametrize("section", ["detection", "recognition"])
async def test_a_wrong_certificate_does_not_get_through_the_handshake_and_the_log_says_so(
    cluster: Secured, section: str
) -> None:
    member = cluster.members[section]
    before = len(member.log)
    metadata = (("authorization", f"Bearer {TOKEN}"),)
    async with cluster.channel(member, "stranger") as channel:
        answer = await answer_of(channel, "/grpc.health.v1.Health/Check", False, False, metadata)
        assert isinstance(answer, grpc.aio.AioRpcError)
        # No server said this: there was no connection.
        assert answer.code() is grpc.StatusCode.UNAVAILABLE
        assert not answer.trailing_metadata()
    bare = grpc.ssl_channel_credentials((cluster.folder / "ca.pem").read_bytes())
    async with grpc.aio.secure_channel(f"localhost:{member.port}", bare) as channel:
        answer = await answer_of(channel, "/grpc.health.v1.Health/Check", False, False, metadata)
        assert isinstance(answer, grpc.aio.AioRpcError)
        assert answer.code() is grpc.StatusCode.UNAVAILABLE
    async with grpc.aio.insecure_channel(f"localhost:{member.port}") as channel:
        answer = await answer_of(channel, "/grpc.health.v1.Health/Check", False, False, metadata)
        assert isinstance(answer, grpc.aio.AioRpcError)
    told = ("CERTIFICATE_VERIFY_FAILED", "PEER_DID_NOT_RETURN_A_CERTIFICATE")
    # In one condition: each line is written when its connection ends, in no set order.
    await asyncio.to_thread(wait_until, lambda: all(text in member.log[before:] for text in told))
    # Whoever has the right one gets in all the same.
    async with cluster.channel(member) as channel:
        assert isinstance(await answer_of(channel, "/grpc.health.v1.Health/Check", False, False, metadata), bytes)


def with_comment(picture: bytes) -> bytes:
    comment, out = PngImagePlugin.PngInfo(), io.BytesIO()
    comment.add_text("Comment", PICTURE)
    Image.open(io.BytesIO(picture)).save(out, "PNG", pnginfo=comment)
    return out.getvalue()


async def test_no_log_and_no_description_tells_a_secret_a_picture_or_its_text(cluster: Secured) -> None:
    """A run at debug level through everything that succeeds and everything that fails, then a search for canaries."""
    async with AsyncClient(cluster.orchestrator.address, tls=cluster.tls, token=TOKEN) as client:
        result = await client.process(with_comment(draw(NUMBER, 1)))
        assert [region.text for region in result.regions] == [TEXT], "what is searched for below was really there"
        failed: list[errors.SluicewayError] = []
        for deed in (Deed.CRASH, Deed.RAISE):
            with pytest.raises(errors.ServerFault) as fault:
                await client.process(with_comment(draw(NUMBER, 1, deed)))
            failed.append(fault.value)
        for deed in (Deed.READ_CRASH, Deed.READ_NAN):
            result = await client.process(with_comment(draw(NUMBER, 1, deed)))
            failed += [reading.error for region in result.regions for reading in region.readings if reading.error]
        assert [error.reason for error in failed] == ["QUARANTINED", "MODEL_FAILED", "QUARANTINED", "MODEL_FAILED"]
        for error in failed:
            told = f"{error} {error.metadata}"
            assert not any(canary in told for canary in (TOKEN, STAGE_TOKEN, SECRET, PICTURE, str(NUMBER)))
        truncated = with_comment(draw(NUMBER, 1))[:-40]
        for source in (truncated, PICTURE.encode(), "api:pictures?id=" + PICTURE, "http://127.0.0.1/" + PICTURE):
            with pytest.raises(errors.SluicewayError) as caught:
                await client.process(source)
            assert SECRET not in str(caught.value)
        described = repr(await client.describe())
    stages = []
    for member in (cluster.detection, cluster.recognition):
        path = {"detection": "/sluiceway.detection.v1.DetectionService/Describe"}.get(
            member.section, "/sluiceway.recognition.v1.RecognitionService/Describe"
        )
        async with cluster.channel(member) as channel:
            answer = await answer_of(channel, path, False, False, (("authorization", f"Bearer {TOKEN}"),))
            assert isinstance(answer, bytes)
            stages.append(repr(answer))
    places = {"description": described, "stages": " ".join(stages)}
    for name, member in cluster.members.items():
        places[f"log of {name}"] = member.log
        for page in ("/statusz", "/metrics"):
            places[f"{page} of {name}"] = member.get(page)[1]
    assert "DEBUG" in places["log of orchestrator"], "the run was to be at debug level"
    for place, text in places.items():
        for canary in (TOKEN, STAGE_TOKEN, SECRET, PICTURE, TEXT, str(NUMBER), "\\x89PNG", "iVBORw0KGgo"):
            assert canary not in text, f"{canary} is in the {place}"
        assert str(cluster.folder / "server.key") not in text


def test_operations_ports_need_no_token_and_tell_no_name(cluster: Secured) -> None:
    """Probes have no tokens. What they see is states and numbers."""
    for member in cluster.members.values():
        with urllib.request.urlopen(f"http://127.0.0.1:{member.operations_port}/readyz", timeout=30) as answer:
            assert answer.status == 200


async def test_new_certificates_are_used_by_servers_and_between_them_without_a_restart(tmp_path: Path) -> None:
    """The whole installation moves to another authority; a stage restarted with the new one is reached by the old
    orchestrator, whose own certificate changed under it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issue(authority, tmp_path, "server")
    environment = {
        "SLUICEWAY_SECURITY__CERTIFICATE": str(tmp_path / "server.pem"),
        "SLUICEWAY_SECURITY__KEY": str(tmp_path / "server.key"),
        "SLUICEWAY_SECURITY__CA": str(tmp_path / "ca.pem"),
    }
    with Fleet(tmp_path) as fleet:
        (detection,), (recognition,), orchestrator = fleet.cluster(
            settings={"orchestrator": {"RESOLVE_INTERVAL_S": "0.5"}}, environment=environment
        )
        pid = orchestrator.process.pid
        async with AsyncClient(orchestrator.address, tls=Tls(ca=tmp_path / "ca.pem")) as client:
            assert (await client.process(draw(1, 1))).ok
        renewed = trustme.CA()
        renewed.cert_pem.write_to_path(tmp_path / "ca.pem")
        issue(renewed, tmp_path, "server")
        await asyncio.to_thread(wait_until, lambda: orchestrator.log.count("connecting to") >= 2)
        for stage in (detection, recognition):
            # A stage that only knows the new authority: what was open before does not help.
            stage.stop()
            stage.start()
        async with AsyncClient(orchestrator.address, tls=Tls(ca=tmp_path / "ca.pem")) as client:
            result = await client.process(draw(2, 2), timeout_s=60)
            assert sorted(region.text or "" for region in result.regions) == ["2:0", "2:1"]
        assert orchestrator.process.pid == pid
