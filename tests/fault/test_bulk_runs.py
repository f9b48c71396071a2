"""A bulk run survives what happens to its cluster, and every image has a line whatever happens."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ledger_models import draw
from pseudo_terminal import COMMAND
from server_processes import Fleet, Member
from waiting import wait_until

from sluiceway import Client, errors

COUNT = 400
AWAY_S = 3


def images(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{index:04}.png" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(draw(index, 1))
    return paths


class Run:
    """A `sluiceway run --json` under way."""

    def __init__(self, *arguments: object, results: Path, append: bool = False) -> None:
        self.results = results
        self._errors = results.with_suffix(".err")
        with results.open("ab" if append else "wb") as out, self._errors.open("wb") as err:
            command = [*COMMAND, "run", *map(str, arguments), "--json"]
            self.process = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL)

    @property
    def lines(self) -> list[bytes]:
        return self.results.read_bytes().splitlines()

    @property
    def said(self) -> str:
        return self._errors.read_text()

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    def wait(self, within_s: float = 100) -> int:
        try:
            return self.process.wait(within_s)
        finally:
            self.process.kill()


def restart(orchestrator: Member, away_s: float = AWAY_S) -> None:
    orchestrator.kill(signal.SIGKILL)
    orchestrator.process.wait()
    time.sleep(away_s)
    orchestrator.start()


@pytest.mark.timeout(300)
def test_a_run_outlasts_an_orchestrator_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    paths = images(tmp_path / "scans", COUNT)
    with Fleet(tmp_path) as fleet:
        *_, orchestrator = fleet.cluster()
        run = Run(tmp_path / "scans", "--address", orchestrator.address, results=tmp_path / "results.ndjson")
        wait_until(lambda: len(run.lines) >= 20)
        restart(orchestrator)
        assert run.wait() == 0, run.said
        found = run.objects()
        assert [item["source"] for item in found] == list(map(str, paths))
        assert [[region["text"] for region in item["regions"]] for item in found] == [
            [f"{index}:0"] for index in range(COUNT)
        ]


@pytest.mark.timeout(300)
def test_process_many_outlasts_it_too(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        *_, orchestrator = fleet.cluster()
        with Client(orchestrator.address) as client:
            texts, killer = [], None
            for index, result in enumerate(client.process_many(draw(index, 1) for index in range(COUNT))):
                texts.append(result.raise_for_error().text)
                if index == 20:
                    killer = threading.Thread(target=restart, args=(orchestrator,))
                    killer.start()
            assert killer is not None
            killer.join()
        assert texts == [f"{index}:0" for index in range(COUNT)]


def test_a_single_call_waits_within_its_deadline(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        *_, orchestrator = fleet.cluster()
        with Client(orchestrator.address) as client:
            client.process(draw(1, 1))
            killer = threading.Thread(target=restart, args=(orchestrator, 1))
            killer.start()
            wait_until(lambda: orchestrator.process.poll() is not None)
            assert client.process(draw(2, 1), timeout_s=60).text == "2:0"
            killer.join()
    with Client(orchestrator.address) as client:
        begun_s = time.monotonic()
        with pytest.raises(errors.Unavailable, match="cannot reach"):
            client.process(draw(3, 1), timeout_s=2)
        assert time.monotonic() - begun_s < 30


def test_every_image_has_a_line_though_the_cluster_never_comes_back(tmp_path: Path) -> None:
    """And the same command once more, with the cluster, does what is left."""
    paths = images(tmp_path / "scans", 60)
    with Fleet(tmp_path) as fleet:
        *_, orchestrator = fleet.cluster()
        where = [tmp_path / "scans", "--address", orchestrator.address]
        # Nobody is asked for more than a window of images before the first are written: with one, some are left.
        run = Run(*where, "--patience", 2, "--in-flight", 1, results=tmp_path / "results.ndjson")
        wait_until(lambda: len(run.lines) >= 3)
        orchestrator.kill(signal.SIGKILL)
        orchestrator.process.wait()
        assert run.wait() == 1, run.said
        found = run.objects()
        assert [item["source"] for item in found] == list(map(str, paths))
        failed = [item for item in found if item["status"] == "failed"]
        assert failed
        assert {item["error"]["code"] for item in failed} == {"UNAVAILABLE"}
        assert f"cannot reach {orchestrator.address}" in failed[-1]["error"]["message"]
        assert f"{len(failed)} failed" in run.said

        # Its last line was cut off, too.
        whole = (tmp_path / "results.ndjson").read_bytes()
        (tmp_path / "results.ndjson").write_bytes(whole[:-30])
        orchestrator.start()
        again = Run(*where, "--resume", tmp_path / "results.ndjson", results=tmp_path / "results.ndjson", append=True)
        assert again.wait() == 0, again.said
        done = len(paths) - len(failed)
        assert f"{len(failed)} of {len(failed)} images" in again.said
        assert f"{done} done before" in again.said
        lines = again.lines
        assert len(lines) == len(paths) + len(failed)
        good = [json.loads(line)["source"] for line in lines if line.endswith(b"}") and b'"status": "ok"' in line]
        assert sorted(good) == sorted(map(str, paths))


def test_nothing_is_left_to_do(tmp_path: Path) -> None:
    """No cluster is started, and none is asked."""
    [path] = images(tmp_path / "scans", 1)
    (tmp_path / "done.ndjson").write_text(json.dumps({"source": str(path), "status": "ok"}) + "\n")
    run = Run(path, "--resume", tmp_path / "done.ndjson", results=tmp_path / "results.ndjson")
    assert run.wait() == 0
    assert run.lines == []
    assert "0 of 0 images, 0 regions, 1 done before" in run.said


def test_a_missing_stage_is_told_at_once_and_is_the_reason_in_the_end(tmp_path: Path) -> None:
    [path] = images(tmp_path / "scans", 1)
    with Fleet(tmp_path) as fleet:
        detection = fleet.add("detection").start()
        settings = {"DETECTION": detection.address, "RECOGNITION": "127.0.0.1:9", "DEFAULT_DEADLINE_S": "8"}
        orchestrator = fleet.add("orchestrator", settings).start()
        run = Run(path, "--address", orchestrator.address, results=tmp_path / "results.ndjson")
        wait_until(lambda: "no replica of recognition takes work; waiting" in run.said, state=lambda: run.said)
        assert run.process.poll() is None, "it was told before anything was over"
        assert run.wait(60) == 1, run.said
        [item] = run.objects()
        assert item["error"]["message"] == "no replica of recognition is ready"
        said = run.said.splitlines()
        assert all(line != following for line, following in pairwise(said)), "it is told when it changes"


def test_an_address_without_a_server_is_told_at_once(tmp_path: Path) -> None:
    [path] = images(tmp_path / "scans", 1)
    run = Run(path, "--address", "127.0.0.1:1", "--patience", 20, results=tmp_path / "results.ndjson")
    wait_until(lambda: "cannot reach 127.0.0.1:1" in run.said, state=lambda: run.said, within_s=15)
    assert run.process.poll() is None, "it was told before anything was over"
    assert run.wait(60) == 1
    assert [item["status"] for item in run.objects()] == ["failed"]


# --- what cannot be read, or is not -----------------------------------------------------------------------------------


def test_large_files_and_pipes_end_nothing_but_themselves(tmp_path: Path) -> None:
    _first, large, _last = images(tmp_path / "scans", 3)
    with large.open("wb") as file:
        file.truncate(2100 * 2**20)
    with Fleet(tmp_path) as fleet:
        *_, orchestrator = fleet.cluster()
        run = Run(tmp_path / "scans", "--address", orchestrator.address, results=tmp_path / "results.ndjson")
        assert run.wait() == 1, run.said
        assert [item["status"] for item in run.objects()] == ["ok", "failed", "ok"]
        assert run.objects()[1]["error"]["reason"] == "IMAGE_TOO_LARGE"


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]])
def test_a_run_that_waits_for_a_pipe_ends_by_a_signal(numbers: Sequence[signal.Signals], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    run = Run(tmp_path / "pipe.png", "--address", "127.0.0.1:1", results=tmp_path / "results.ndjson")
    wait_until(lambda: "cannot reach" in run.said, state=lambda: run.said)
    for number in numbers:
        run.process.send_signal(number)
    assert run.wait(20) == 130
    assert "stopped" in run.said


def test_a_run_whose_reader_does_not_read_ends_by_a_signal(tmp_path: Path) -> None:
    """A pipe takes a page, and then the one who writes into it waits."""
    images(tmp_path / "scans", COUNT)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    seen = [0]

    def is_full() -> bool:
        """Lines came, and for a second none did, though hundreds are left."""
        seen.extend(struct.unpack("i", fcntl.ioctl(reading, termios.FIONREAD, b"\0" * 4)))
        return seen[-1] > 0 and seen[-100:] == [seen[-1]] * 100

    with Fleet(tmp_path) as fleet:
        *_, orchestrator = fleet.cluster()
        command = [*COMMAND, "run", str(tmp_path / "scans"), "--json", "--address", orchestrator.address]
        run = subprocess.Popen(command, stdout=writing, stderr=subprocess.DEVNULL)
        os.close(writing)
        try:
            wait_until(is_full)
            run.send_signal(signal.SIGINT)
            assert run.wait(20) == 130
        finally:
            run.kill()
            os.close(reading)
