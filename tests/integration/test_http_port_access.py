"""Who may call the public HTTP port: tokens, limits, names, pages of other origins, TLS."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from http_port import IMAGE, port_of, serve
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.http import HttpConfig
from sluiceway_orchestrator.jobs import Jobs
from sluiceway_orchestrator.testing import Cluster, picture
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.server.security import Security, SecurityConfig

TOKEN = "a-token"


async def test_a_token_is_wanted_where_grpc_wants_one() -> None:
    config = SecurityConfig.model_validate({"clients": {"someone": {"token_env": "TOKEN"}}})
    async with serve(security=Security(config, {"TOKEN": TOKEN})) as http:
        status, headers, problem = await http.post(picture(1), **IMAGE)
        assert (status, headers["WWW-Authenticate"], problem["reason"]) == (401, "Bearer", "UNAUTHENTICATED")
        assert (await http.post(picture(1), **IMAGE, Authorization="Bearer wrong"))[0] == 401
        assert (await http.post(picture(1), **IMAGE, Authorization=f"Bearer {TOKEN}"))[0] == 200
        async with http.session.get(f"{http.url}/v1/describe") as response:
            assert response.status == 401


async def test_a_client_over_its_own_limit() -> None:
    config = SecurityConfig.model_validate({"clients": {"one": {"token_env": "TOKEN", "rate_per_s": 0.01}}})
    async with serve(security=Security(config, {"TOKEN": TOKEN})) as http:
        assert (await http.post(picture(1), **IMAGE, Authorization=f"Bearer {TOKEN}"))[0] == 200
        status, headers, _ = await http.post(picture(1), **IMAGE, Authorization=f"Bearer {TOKEN}")
    assert status == 429
    assert 90 <= int(headers["Retry-After"]) <= 100


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        ((), "localhost:8080", 200),
        ((), "[::1]:8080", 200),
        ((), "attacker.example", 421),
        ((), "localhost.attacker.example", 421),
        ((), "127.0.0.1@attacker.example", 421),
        ((), "[0]e@", 421),
        (("vision.example",), "vision.example", 200),
        (("vision.example",), "VISION.example:8080", 200),
        (("*",), "any.example", 200),
    ],
)
async def test_only_known_names_are_answered(allowed: tuple[str, ...], host: str, status: int) -> None:
    async with serve({"allow_hosts": allowed}) as http:
        assert (await http.post(picture(1), **IMAGE, Host=host))[0] == status


async def test_pages_of_other_origins_may_not_call() -> None:
    async with serve({"allow_origins": ("https://app.example",)}) as http:
        assert (await http.post(picture(1), **IMAGE, Origin="https://evil.example"))[0] == 403
        assert (await http.post(picture(1), **IMAGE, Origin="null"))[0] == 403
        assert (await http.post(picture(1), **IMAGE, Origin=http.url))[0] == 200
        status, headers, _ = await http.post(picture(1), **IMAGE, Origin="https://app.example")
        assert (status, headers["Access-Control-Allow-Origin"]) == (200, "https://app.example")
        assert http.cluster.detection[0].stage.seen == {1: 2}
        preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        async with http.session.options(f"{http.url}/v1/process", headers=preflight) as response:
            assert response.status == 204
            assert "POST" in response.headers["Access-Control-Allow-Methods"]
            assert "Authorization" in response.headers["Access-Control-Allow-Headers"]


async def test_is_not_open_to_a_network_by_accident() -> None:
    async with Cluster([], []) as cluster:
        config = OrchestratorConfig()
        jobs = Jobs(config, cluster.service.executor, cluster.service.budget)
        port = port_of(cluster, config, HttpConfig(port=0, host="0.0.0.0"), jobs.run)
        with pytest.raises(StartupError, match="no token"):
            await port.start()


async def certificate(chain: Path, key: Path) -> None:
    """Write a certificate for this machine and its key."""
    process = await asyncio.create_subprocess_exec(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", str(key), "-out", str(chain), "-days", "1", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=IP:127.0.0.1"),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0


async def test_tls_with_the_certificate_of_grpc(tmp_path: Path) -> None:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    await certificate(chain, key)
    trust = ssl.create_default_context(cafile=chain)
    async with (
        serve(security=Security(SecurityConfig(certificate=chain, key=key))) as http,
        http.session.post(
            f"https://127.0.0.1:{http.port.port}/v1/process", data=picture(1), headers=IMAGE, ssl=trust
        ) as response,
    ):
        assert response.status == 200
        assert len((await response.text()).splitlines()) == 5


async def test_a_certificate_counts_once_its_key_is_there(tmp_path: Path) -> None:
    """Between the two files' being written the former pair is shown, again and again."""
    chain, key, next_chain, next_key = (tmp_path / name for name in ("chain", "key", "next chain", "next key"))
    await certificate(chain, key)
    await certificate(next_chain, next_key)
    trust = ssl.create_default_context(cafile=chain)
    trust.load_verify_locations(next_chain)

    async def shown(port: int) -> str:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return ssl.DER_cert_to_PEM_cert(shown)

    async with serve(security=Security(SecurityConfig(certificate=chain, key=key))) as http:
        former = await shown(http.port.port)
        next_chain.replace(chain)
        assert [await shown(http.port.port) for _ in range(3)] == [former] * 3
        next_key.replace(key)
        found = [await shown(http.port.port) for _ in range(2)]
        assert found[-1] == chain.read_text()


async def test_a_request_id_is_taken_over_and_a_bad_one_is_not() -> None:
    async with serve() as http:
        _, headers, events = await http.post(picture(1), **IMAGE, **{"X-Request-Id": "mine-1"})
        assert headers["X-Request-Id"] == "mine-1"
        assert events[0]["job_id"] == "mine-1"
        _, headers, _ = await http.post(picture(1), **IMAGE, **{"X-Request-Id": "a b"})
        assert headers["X-Request-Id"] != "a b"
