"""The command line where people type it: terminals of 60 and 200 columns, pipes, streams that are closed or full."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pseudo_terminal import COMMAND, Typed, plain, type_command

WIDTHS = (60, 200)
STREAMS = 3
QUICK = [
    *(["version"], ["--help"], ["run", "--help"], ["models", "list"], ["doctor", "--no-trial"]),
    *(["config", "show"], ["models", "path", "ppocrv6-tiny"]),
]
# Those that ask a cluster: PAGE is an image, ID a request that the cluster remembers, and the address follows.
ASKING = [
    ["top", "--once"],
    ["top", "--json"],
    ["explain", "ID"],
    ["bench", "PAGE", "--in-flight", "1", "--seconds", "1"],
    ["run", "PAGE", "--format", "csv"],
]
# Those that take long before they have anything to write.
LONG = [["bench", "PAGE", "--find-knee", "--p99", "500"], ["tune", "PAGE"]]


def objects(data: bytes | str) -> list[dict[str, Any]]:
    text = data if isinstance(data, str) else data.decode()
    return [json.loads(line) for line in text.splitlines()]


def words(item: dict[str, Any]) -> list[str]:
    return " ".join(region["text"] or "" for region in item["regions"]).split()


@pytest.mark.parametrize("columns", WIDTHS)
def test_ndjson_into_a_file_is_all_there(up: Any, samples: Path, tmp_path: Path, columns: int) -> None:
    """Typed as `sluiceway run … --json > results.ndjson`: the progress is on the terminal, the results in the file."""
    with (tmp_path / "results.ndjson").open("wb") as results:
        done = type_command(
            ["run", samples / "page.png", samples / "bus.jpg", "--json", "--address", up.address],
            columns=columns,
            stdout=results,
        )
    assert done.code == 0, done.terminal
    page, bus = objects((tmp_path / "results.ndjson").read_bytes())
    assert [page["source"], bus["source"]] == [str(samples / "page.png"), str(samples / "bus.jpg")]
    assert len(words(page)) >= 40
    assert "2 of 2 images" in plain(done.terminal)
    assert '"source"' not in done.terminal


@pytest.mark.parametrize("columns", WIDTHS)
def test_ndjson_on_a_terminal_is_not_wrapped(up: Any, samples: Path, columns: int) -> None:
    done = type_command(["run", samples / "page.png", "--json", "--address", up.address], columns=columns)
    assert done.code == 0, done.terminal
    [line] = [line for line in done.lines if line.startswith("{")]
    assert len(words(json.loads(line))) >= 40


@pytest.mark.parametrize("columns", WIDTHS)
def test_ndjson_into_a_pipe(up: Any, samples: Path, columns: int) -> None:
    arguments = ["run", samples / "page.png", samples / "notes.txt", "--json", "--address", up.address]
    done = type_command(arguments, columns=columns, stdout=subprocess.PIPE)
    assert done.code == 1, done.terminal
    assert [item["status"] for item in objects(done.stdout)] == ["ok", "failed"]


def test_a_cluster_that_is_started_shows_itself_on_the_terminal_alone(samples: Path, tmp_path: Path) -> None:
    with (tmp_path / "results.ndjson").open("wb") as results:
        done = type_command(["run", samples / "page.png", "--json"], columns=60, stdout=results)
    assert done.code == 0, done.terminal
    [page] = objects((tmp_path / "results.ndjson").read_bytes())
    assert len(words(page)) >= 40
    assert "orchestrator  ready" in plain(done.terminal)


@pytest.mark.parametrize("columns", WIDTHS)
def test_tables_on_a_terminal(up: Any, samples: Path, columns: int) -> None:
    done = type_command(["run", samples / "page.png", "--address", up.address], columns=columns)
    assert done.code == 0, done.terminal
    assert max(map(len, done.lines[1:])) <= max(columns, len(up.address) + 60)
    assert any(line.startswith("Region-based") for line in done.lines)
    assert "1 of 1 images" in plain(done.terminal)


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("command", QUICK, ids=" ".join)
def test_other_commands_on_a_terminal(command: list[str], columns: int) -> None:
    done = type_command(command, columns=columns)
    assert done.code == 0, done.terminal
    assert plain(done.terminal).strip()
    assert "Traceback" not in done.terminal


@pytest.fixture(scope="module")
def asking(up: Any, samples: Path) -> Callable[[list[str]], list[object]]:
    """Puts into a command what its words in capitals stand for."""
    command = [*COMMAND, "run", str(samples / "page.png"), "--json", "--address", up.address]
    [item] = objects(subprocess.run(command, capture_output=True, timeout=110, check=True).stdout)
    meant = {"PAGE": samples / "page.png", "ID": item["request_id"]}
    return lambda command: [*(meant.get(word, word) for word in command), "--address", up.address]


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("command", ASKING, ids=" ".join)
def test_commands_that_ask_a_cluster_on_a_terminal(asking: Any, command: list[str], columns: int) -> None:
    done = type_command(asking(command), columns=columns)
    assert done.code == 0, done.terminal
    assert "Traceback" not in done.terminal
    shown = plain(done.terminal)
    if "--json" in command:
        assert any(isinstance(json.loads(line), dict) for line in shown.splitlines() if line.startswith("{"))
    else:
        assert len(shown.strip().splitlines()) >= 3


# --- streams that cannot be used --------------------------------------------------------------------------------------


def ended_for_its_streams(done: Typed, said: str) -> None:
    assert done.code == STREAMS, done.terminal
    assert said in plain(done.terminal)
    assert "Traceback" not in done.terminal
    assert "Exception ignored" not in done.terminal


@pytest.mark.parametrize("mode", [["--json"], []], ids=["json", "tables"])
def test_a_full_disk_ends_a_run(up: Any, samples: Path, mode: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = type_command(["run", samples / "page.png", *mode, "--address", up.address], stdout=full)
    ended_for_its_streams(done, "cannot write to standard output: No space left on device")


@pytest.mark.parametrize("mode", [["--json"], []], ids=["json", "tables"])
def test_a_closed_stdout_ends_a_run_before_anything_is_done(samples: Path, mode: list[str]) -> None:
    """Nothing listens at the address, and nothing says so: it does not come to that."""
    done = type_command(["run", samples / "page.png", *mode, "--address", "127.0.0.1:1"], close=[1])
    ended_for_its_streams(done, "standard output is closed")


@pytest.mark.parametrize("mode", [["--json"], []], ids=["json", "tables"])
def test_a_reader_that_went_away_ends_a_run(up: Any, samples: Path, mode: list[str]) -> None:
    """As with `| head -1`: nobody is told, the code is enough."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = type_command(["run", samples / "page.png", *mode, "--address", up.address], stdout=writing)
    finally:
        os.close(writing)
    ended_for_its_streams(done, "")
    assert "standard output" not in done.terminal


@pytest.mark.parametrize("command", QUICK, ids=" ".join)
def test_other_commands_on_a_full_disk(command: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        ended_for_its_streams(type_command(command, stdout=full), "No space left on device")


@pytest.mark.parametrize("command", QUICK, ids=" ".join)
def test_other_commands_without_a_stdout(command: list[str]) -> None:
    ended_for_its_streams(type_command(command, close=[1]), "standard output is closed")


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
def test_commands_that_ask_a_cluster_on_a_full_disk(asking: Any, command: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        ended_for_its_streams(type_command(asking(command), stdout=full), "No space left on device")


@pytest.mark.parametrize("command", [*ASKING, *LONG], ids=" ".join)
def test_commands_that_ask_a_cluster_without_a_stdout(samples: Path, command: list[str]) -> None:
    """Nobody listens at the address, and nobody is asked."""
    words = [samples / "page.png" if word == "PAGE" else word for word in command]
    where = [] if command[0] == "tune" else ["--address", "127.0.0.1:1"]
    done = type_command([*words, *where], close=[1])
    ended_for_its_streams(done, "standard output is closed")


def test_a_closed_stdin_cannot_be_read(up: Any) -> None:
    ended_for_its_streams(
        type_command(["run", "-", "--json", "--address", up.address], close=[0]), "standard input is closed"
    )


def test_without_any_stream_the_code_says_it(samples: Path) -> None:
    """What is opened next would get the number of a closed stream; a library that complains would write there."""
    done = type_command(["run", samples / "page.png", "--address", "127.0.0.1:1"], close=[0, 1, 2])
    assert done.code == STREAMS


# --- names that are not UTF-8 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["named", "in a folder"])
def test_bytes_of_names_survive(up: Any, samples: Path, tmp_path: Path, where: str) -> None:
    name = os.fsencode(tmp_path / "scans") + b"/M\xfcnchen \xe5\x8c.png"
    (tmp_path / "scans").mkdir()
    Path(os.fsdecode(name)).write_bytes((samples / "page.png").read_bytes())
    typed = name if where == "named" else os.fsencode(tmp_path / "scans")
    done = subprocess.run(
        [*COMMAND, "run", typed, "--json", "--address", up.address], capture_output=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    [item] = objects(done.stdout.decode("utf-8", "strict"))
    assert os.fsencode(item["source"]) == name
    shown = type_command(["run", typed, "--address", up.address])
    assert shown.code == 0, shown.terminal
    assert "M\N{REPLACEMENT CHARACTER}nchen" in plain(shown.terminal)
