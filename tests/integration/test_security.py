"""TLS, mutual TLS, tokens and limits, against a real server over loopback."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry
from sluiceway_runtime.calling.channel import open_channel
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.errors import ConfigurationError, QueueFull, StartupError, Unauthenticated
from sluiceway_runtime.server.app import Server
from sluiceway_runtime.server.security import ClientConfig, Security, SecurityConfig, current_client
from sluiceway_runtime.server.status import from_rpc_error
from waiting import until

from sluiceway.detection.v1 import detection_pb2, detection_pb2_grpc

CONFIG = ServerConfig(port=0, operations_port=0, drain_notice_s=0)
ALICE = "alice-token"


class Echo(detection_pb2_grpc.DetectionServiceServicer):
    """Answers with the name of its caller."""

    names = ("sluiceway.detection.v1.DetectionService",)

    def __init__(self) -> None:
        self.hold = asyncio.Event()
        self.hold.set()
        self.entered = asyncio.Event()

    async def Detect(self, request: Any, context: Any) -> Any:
        self.entered.set()
        await self.hold.wait()
        return detection_pb2.DetectResponse(detections=[detection_pb2.Detection(class_name=current_client.get())])

    async def Describe(self, request: Any, context: Any) -> Any:
        return detection_pb2.DescribeResponse()

    async def start(self) -> None: ...

    def register(self, server: grpc.aio.Server) -> None:
        detection_pb2_grpc.add_DetectionServiceServicer_to_server(self, server)

    def collectors(self, registry: CollectorRegistry) -> None: ...

    def ready(self) -> bool:
        return True

    def status(self) -> Mapping[str, Any]:
        return {}

    def refuse(self) -> None: ...

    async def drain(self, grace_s: float) -> bool:
        return True

    async def close(self) -> None: ...


class Certificates:
    """An authority, and files with certificates that it signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.certificate, self.key = folder / "server.pem", folder / "server.key"
        self.issue()

    def issue(self, *names: str) -> None:
        issued = self.authority.issue_cert(*(names or ("localhost", "127.0.0.1")))
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    def config(self, **more: Any) -> SecurityConfig:
        return SecurityConfig(certificate=self.certificate, key=self.key, ca=self.ca, **more)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


class Running:
    """A started server with a service."""

    def __init__(self, security: Security, section: str = "detection") -> None:
        self.service = Echo()
        self.server = Server(self.service, CONFIG, security, section)

    async def __aenter__(self) -> "Running":
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.close()

    @property
    def target(self) -> str:
        return f"localhost:{self.server.port}"


async def whoami(channel: grpc.aio.Channel, token: str | None = None) -> str:
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    stub = detection_pb2_grpc.DetectionServiceStub(channel)
    answer = await stub.Detect(detection_pb2.DetectRequest(), metadata=metadata, timeout=30)
    return answer.detections[0].class_name


def tokens(**limits: Any) -> Security:
    client = ClientConfig(token_sha256=hashlib.sha256(ALICE.encode()).hexdigest(), **limits)
    return Security(SecurityConfig(clients={"alice": client}))


async def test_a_valid_token_names_its_client() -> None:
    async with Running(tokens()) as running, grpc.aio.insecure_channel(running.target) as channel:
        assert await whoami(channel, ALICE) == "alice"


async def once(request: Any) -> AsyncIterator[Any]:
    # Of a plain iterator gRPC's client says INTERNAL where the refusal comes before the request is sent.
    yield request


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer ", "Basic " + ALICE, ALICE])
async def test_without_a_valid_token_every_method_is_unauthenticated(authorization: str | None) -> None:
    metadata = (("authorization", authorization),) if authorization is not None else ()
    async with Running(tokens()) as running, grpc.aio.insecure_channel(running.target) as channel:
        detection = detection_pb2_grpc.DetectionServiceStub(channel)
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        health = health_pb2_grpc.HealthStub(channel)
        calls = [
            detection.Detect(detection_pb2.DetectRequest(), metadata=metadata),
            detection.Describe(detection_pb2.DescribeRequest(), metadata=metadata),
            health.Check(health_pb2.HealthCheckRequest(), metadata=metadata),
            health.Watch(health_pb2.HealthCheckRequest(), metadata=metadata).read(),
            reflection.ServerReflectionInfo(once(reflection_pb2.ServerReflectionRequest()), metadata=metadata).read(),
            channel.unary_unary("/no.such.Service/Method")(b"", metadata=metadata),
        ]
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert not running.service.entered.is_set()


async def test_health_may_be_left_open() -> None:
    security = tokens()
    open_health = Security(security.config.model_copy(update={"health_without_token": True}))
    async with Running(open_health) as running, grpc.aio.insecure_channel(running.target) as channel:
        assert await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        with pytest.raises(grpc.aio.AioRpcError):
            await whoami(channel)


async def test_calls_at_a_time_are_limited_for_each_client() -> None:
    async with Running(tokens(max_concurrent=1)) as running, grpc.aio.insecure_channel(running.target) as channel:
        running.service.hold.clear()
        first = asyncio.create_task(whoami(channel, ALICE))
        await running.service.entered.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await whoami(channel, ALICE)
        error = from_rpc_error(caught.value)
        assert isinstance(error, QueueFull)
        assert error.retry_after_s
        running.service.hold.set()
        assert await first == "alice"
        assert await whoami(channel, ALICE) == "alice"


async def test_a_cancelled_call_gives_its_place_back() -> None:
    async with Running(tokens(max_concurrent=1)) as running, grpc.aio.insecure_channel(running.target) as channel:
        running.service.hold.clear()
        first = asyncio.create_task(whoami(channel, ALICE))
        await running.service.entered.wait()
        first.cancel()
        running.service.hold.set()
        async with asyncio.timeout(30):
            while True:
                try:
                    assert await whoami(channel, ALICE) == "alice"
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.01)
                else:
                    return


async def test_calls_a_second_are_limited_for_each_client() -> None:
    async with Running(tokens(rate_per_s=0.01)) as running, grpc.aio.insecure_channel(running.target) as channel:
        assert await whoami(channel, ALICE) == "alice"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await whoami(channel, ALICE)
        error = from_rpc_error(caught.value)
        assert isinstance(error, QueueFull)
        assert 90 < (error.retry_after_s or 0) <= 100


async def test_tls_with_token(certificates: Certificates) -> None:
    security = Security(certificates.config(clients=tokens().config.clients))
    credentials = grpc.ssl_channel_credentials(certificates.ca.read_bytes())
    async with (
        Running(security, "orchestrator") as running,
        grpc.aio.secure_channel(running.target, credentials) as channel,
        grpc.aio.insecure_channel(running.target) as plain,
    ):
        assert await whoami(channel, ALICE) == "alice"
        with pytest.raises(grpc.aio.AioRpcError):
            await whoami(plain, ALICE)


async def test_mutual_tls_between_stages(certificates: Certificates, tmp_path: Path) -> None:
    security = Security(certificates.config())
    (tmp_path / "other").mkdir()
    stranger = Certificates(tmp_path / "other")
    strangers = SecurityConfig(certificate=stranger.certificate, key=stranger.key, ca=certificates.ca)
    async with Running(security) as running:
        async with open_channel(running.target, security=security) as channel:
            assert await whoami(channel) == "anonymous"
        bare = grpc.ssl_channel_credentials(certificates.ca.read_bytes())
        async with (
            grpc.aio.secure_channel(running.target, bare) as channel,
            open_channel(running.target, security=Security(strangers)) as wrong,
        ):
            for refused in (channel, wrong):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await whoami(refused)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert running.service.entered.is_set()


async def test_a_replica_is_dialled_by_address_and_known_by_name(certificates: Certificates) -> None:
    certificates.issue("detection.internal")
    security = Security(certificates.config())
    async with Running(security) as running:
        address = f"127.0.0.1:{running.server.port}"
        async with open_channel(address, security=security, authority="detection.internal:50052") as channel:
            assert await whoami(channel) == "anonymous"
        for authority in (None, "recognition.internal"):
            async with open_channel(address, security=security, authority=authority) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await whoami(channel)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_stage_token_goes_with_every_call(certificates: Certificates) -> None:
    server_side = tokens()
    caller = Security(SecurityConfig(stage_token_env="STAGE_TOKEN"), {"STAGE_TOKEN": ALICE})
    async with Running(server_side) as running, open_channel(running.target, security=caller) as channel:
        assert await whoami(channel) == "alice"
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert await watch.read()
        watch.cancel()


async def certificate_of(port: int, ca: Path) -> bytes:
    """What a server shows to a new connection."""
    context = ssl.create_default_context(cafile=str(ca))
    _, writer = await asyncio.open_connection("localhost", port, ssl=context)
    encoded: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return encoded


async def test_new_certificates_are_used_without_a_restart(certificates: Certificates) -> None:
    security = Security(certificates.config(mutual=()))
    async with Running(security) as running:
        first = await certificate_of(running.server.port, certificates.ca)
        assert await certificate_of(running.server.port, certificates.ca) == first
        certificates.issue()
        assert await certificate_of(running.server.port, certificates.ca) != first


async def test_certificates_that_are_missing_or_half_written_leave_those_before_in_use(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """The files are replaced one after the other, and a handshake may come at any moment in between."""
    security = Security(certificates.config(mutual=()))
    async with Running(security) as running:
        port, ca = running.server.port, certificates.ca
        first = await certificate_of(port, ca)
        certificates.key.unlink()
        assert await certificate_of(port, ca) == first
        assert "certificates stay as they are" in caplog.text
        certificates.issue()
        key, chain = certificates.key.read_bytes(), certificates.certificate.read_bytes()
        certificates.certificate.write_bytes(chain[: len(chain) // 3])
        assert await certificate_of(port, ca) == first
        certificates.key.write_bytes(b"")
        assert await certificate_of(port, ca) == first
        certificates.certificate.write_bytes(chain)
        assert await certificate_of(port, ca) == first
        certificates.key.write_bytes(key)
        assert await certificate_of(port, ca) != first


def test_open_to_the_network_needs_a_decision() -> None:
    with pytest.raises(StartupError, match="allow_unauthenticated"):
        Security().require_safe("orchestrator", "0.0.0.0")
    Security().require_safe("orchestrator", "127.0.0.1")
    Security().require_safe("orchestrator", "::1")
    tokens().require_safe("orchestrator", "0.0.0.0")
    Security(SecurityConfig(allow_unauthenticated=True)).require_safe("orchestrator", "0.0.0.0")


def test_faults_in_the_block_are_told_by_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"security\.certificate"):
        Security(SecurityConfig(certificate=tmp_path / "none", key=tmp_path / "none"))
    with pytest.raises(ConfigurationError, match=r"security\.clients\.bob\.token_env: BOB"):
        Security(SecurityConfig(clients={"bob": ClientConfig(token_env="BOB")}), {})
    with pytest.raises(ConfigurationError, match="stage_token_env"):
        Security(SecurityConfig(stage_token_env="NOPE"), {})
    same = ClientConfig(token_sha256="0" * 64)
    with pytest.raises(ConfigurationError, match="has the token of"):
        Security(SecurityConfig(clients={"a": same, "b": same}))


def test_tokens_compare_whole() -> None:
    access = tokens().access
    assert access.client_of(f"bearer {ALICE}") == "alice"
    for wrong in (ALICE[:-1], ALICE + "x", ALICE.upper()):
        with pytest.raises(Unauthenticated):
            access.client_of(f"Bearer {wrong}")


@pytest.fixture(autouse=True)
async def _no_task_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    await until(lambda: all(task.done() for task in asyncio.all_tasks() - before - {asyncio.current_task()}))
