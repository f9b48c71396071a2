"""`bench` against a scripted server, and what it says of wrong usage."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner
from waiting import until

from sluiceway.cli.app import app
from sluiceway.installation import install_command


async def bench(*arguments: str, code: str = "") -> tuple[int | None, str, str]:
    # A process of its own: the command takes over the signals of the thread that it runs in.
    command = ["-c", code, "bench"] if code else ["-m", "sluiceway.cli", "bench"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, complained = await asyncio.wait_for(process.communicate(), 100)
    return process.returncode, said.decode(), complained.decode()


@pytest.fixture
def picture(tmp_path: Path) -> str:
    (tmp_path / "a.png").write_bytes(b"hello")
    return str(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (["--rate", "40", "--seconds", "1"], "open loop, poisson arrivals at 40 a second, seed 1"),
        (["--rate", "40", "--seconds", "1", "--arrivals", "even"], "open loop, even arrivals at 40 a second"),
        (["--in-flight", "3", "--seconds", "1"], "closed loop, 3 in flight"),
    ],
)
async def test_load_of_each_kind(server: Any, picture: str, tmp_path: Path, load: list[str], words: str) -> None:
    page = tmp_path / "report.html"
    server.fake.ready_stages.add("plates")
    code, said, complained = await bench(
        picture, *load, "--address", server.address, "--json", "--p99", "60000", "--html", str(page),
        "--pipeline", "parking", "--param", "country=DE",
    )  # fmt: skip
    assert code == 0, complained
    found = json.loads(said)
    assert found["facts"]["load"].startswith(words)
    assert found["facts"]["pipeline"] == "parking"
    assert found["summary"]["outcomes"].keys() == {"ok"}
    assert found["summary"]["requests"] > 3
    assert found["summary"]["goal_kept"] is True
    assert {"text: from first call to last answer", "server in all"} <= {
        part["name"] for part in found["summary"]["parts"]
    }
    assert page.read_text().startswith("<!doctype html>")
    jobs = server.fake.requests
    assert {(job.pipeline, job.sources[0].image, job.sources[0].params["country"]) for job in jobs} == {
        ("parking", b"hello", "DE")
    }
    # One to see whether the source is served at all, those of the warm-up, and those that were counted.
    assert len(jobs) > found["summary"]["requests"]


async def test_a_trace_says_when_and_what(server: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"hello")
    (tmp_path / "b.png").write_bytes(b"world")
    (tmp_path / "trace").write_text("10 a.png\n10.2 b.png\n10.4 b.png\n10.6 a.png\n11 a.png\n")
    code, said, complained = await bench("--trace", str(tmp_path / "trace"), "--address", server.address, "--json")
    assert code == 0, complained
    found = json.loads(said)
    assert found["facts"]["load"].startswith("open loop, a trace of 5 arrivals at 1 x its speed")
    sent = [job.sources[0].image for job in server.fake.requests]
    assert sent[:2] == [b"hello", b"world"]
    assert sent[2:] == [b"hello", b"world", b"world", b"hello", b"hello"]


async def test_the_table_is_for_people(server: Any, picture: str) -> None:
    code, said, complained = await bench(picture, "--rate", "20", "--seconds", "1", "--address", server.address)
    assert code == 0, complained
    assert "where the time went" in said
    assert "from when a request was due" in said
    assert "open loop, 1 s" in complained


async def test_the_knee_of_a_server_is_found_in_time(server: Any, picture: str) -> None:
    begun_s = asyncio.get_running_loop().time()
    code, said, complained = await bench(
        picture, "--find-knee", "--p99", "1000", "--seconds", "20", "--address", server.address, "--json"
    )
    assert code in (0, 1), complained
    found = json.loads(said)["knee"]
    # How high it is, is a matter of this machine.
    assert (found["rate_per_s"] is None) == (code == 1)
    assert found["why"] or found["capacity_per_s"] > 0
    assert asyncio.get_running_loop().time() - begun_s < 90


async def test_a_source_that_is_refused_is_told_before_the_load(server: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"bad")
    name = str(tmp_path / "a.png")
    code, said, complained = await bench(name, "--rate", "20", "--address", server.address)
    assert (code, said) == (1, "")
    assert f"{name}: INVALID_IMAGE" in complained
    assert len(server.fake.requests) == 1


async def test_refusals_are_outcomes_and_not_tried_again(server: Any, picture: str, refusal: Any) -> None:
    running = asyncio.create_task(
        bench(picture, "--rate", "30", "--seconds", "3", "--p99", "60000", "--address", server.address, "--json")
    )
    # The first is of the source that is tried before.
    await until(lambda: len(server.fake.requests) >= 2)
    server.fake.source_failures = [refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", 0.5)] * 1000
    code, said, complained = await running
    assert code == 1, complained
    found = json.loads(said)["summary"]
    assert found["outcomes"]["QUEUE_FULL"] > 0
    assert found["goal_kept"] is False
    assert found["goodput_per_s"]["value"] < found["offered_per_s"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupt_ends_it_in_order(server: Any, picture: str, how: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sluiceway.cli", "bench", picture, "--rate", "20", "--seconds", "600",
        "--address", server.address, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    async with asyncio.timeout(100):
        while b"open loop" not in await process.stderr.readline():
            assert process.returncode is None
        process.send_signal(how)
        said, complained = await process.communicate()
    assert process.returncode == 130
    assert said == b""
    assert complained.decode().strip() == "stopped"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.png"], "says how to load the cluster, and none was given"),
        (["a.png", "--rate", "3", "--in-flight", "2"], "not --rate and --in-flight"),
        (["a.png", "--rate", "0"], "--rate must be above 0, not 0"),
        (["a.png", "--rate", "nan"], "--rate must be above 0, not nan"),
        (["a.png", "--find-knee"], "--find-knee needs --p99"),
        (["a.png", "--find-knee", "--p99", "100", "--seconds", "5"], "needs --seconds of at least 20"),
        (["a.png", "--find-knee", "--p99", "9000"], "a --p99 of at most 4500 ms can be judged"),
        (["--rate", "3"], "name what to send"),
        (["a.png", "--rate", "3", "--param", "country"], "--param is of the form KEY=VALUE"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("trace", "said"), [("soon\n", "is not a number"), ("1\n1\n", "has no two arrivals at different times")]
)
def test_a_trace_that_cannot_be_played_is_told(tmp_path: Path, trace: str, said: str) -> None:
    (tmp_path / "trace").write_text(trace)
    result = CliRunner().invoke(app, ["bench", "a.png", "--trace", str(tmp_path / "trace")])
    assert result.exit_code == 2
    assert said in result.stderr.replace("\n", " ")


async def test_without_its_extra_it_says_what_to_install(picture: str) -> None:
    code = "import sys; sys.modules['hdrh'] = None\nfrom sluiceway.cli.app import main\nmain()"
    result, said, complained = await bench(picture, "--rate", "3", code=code)
    assert (result, said) == (2, "")
    assert install_command("bench") in complained
    assert "Traceback" not in complained


async def test_a_part_of_a_trace_is_its_beginning(server: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"hello")
    (tmp_path / "trace").write_text("".join(f"{number / 10} a.png\n" for number in range(50)))
    trace = str(tmp_path / "trace")
    code, said, complained = await bench("--trace", trace, "--seconds", "1", "--address", server.address, "--json")
    assert code == 0, complained
    # One before, and ten of the trace, of which the first is the warm-up.
    assert len(server.fake.requests) == 11
    assert json.loads(said)["summary"]["requests"] == 9
