"""Files that are too large, that never come, or that change while they are read: each fails alone."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sluiceway import errors
from sluiceway.client import AsyncClient, aio, files
from sluiceway.client.sources import load_source


@pytest.fixture
async def client(server: Any) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.address) as made:
        yield made


def sparse(path: Path, size_bytes: int) -> Path:
    """A file of any size that takes no room on the disk."""
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return path


async def results_of(client: AsyncClient, *sources: Any) -> list[Any]:
    async with asyncio.timeout(60):
        return [item async for item in client.process_many(sources)]


@pytest.mark.parametrize("size_bytes", [100 * 2**20, 2**31 - 1, 2**31 + 2**20, 3 * 2**30])
async def test_a_large_file_ends_its_source_alone_and_is_not_read(
    size_bytes: int, client: AsyncClient, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fake.max_image_bytes = 32 * 2**20
    monkeypatch.setattr(files, "_read", lambda *_: pytest.fail("it was read"))
    good = [b"one", b"two"]
    first, large, last = await results_of(client, good[0], sparse(tmp_path / "large.png", size_bytes), good[1])
    assert (first.ok, last.ok) == (True, True)
    assert isinstance(large.error, errors.ImageTooLarge)
    assert str(size_bytes) in large.error.message
    assert large.error.metadata == {"max_image_bytes": str(32 * 2**20)}


async def test_a_file_beyond_any_message_is_refused_also_where_the_server_tells_no_limit(
    client: AsyncClient, tmp_path: Path
) -> None:
    first, large, last = await results_of(client, b"one", sparse(tmp_path / "large.png", 3 * 2**30), b"two")
    assert (first.ok, last.ok) == (True, True)
    assert isinstance(large.error, errors.ImageTooLarge)
    with pytest.raises(errors.ImageTooLarge):
        await client.process(tmp_path / "large.png")


def test_bytes_beyond_any_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.ImageTooLarge, match="3221225472 bytes"):
        files.require_size("the image", 3 * 2**30)
    monkeypatch.setattr(files.require_size, "__defaults__", (10,))
    with pytest.raises(errors.ImageTooLarge, match="11 bytes"):
        load_source(b"x" * 11)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little patience for files; enough for any that is there."""
    monkeypatch.setattr(aio, "READ_TIMEOUT_S", 2.0)


async def test_a_pipe_that_nobody_writes_to_ends_its_source_alone(
    hasty: None, client: AsyncClient, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    first, pipe, last = await results_of(client, b"one", tmp_path / "pipe.png", b"two")
    assert (first.ok, last.ok) == (True, True)
    assert isinstance(pipe.error, errors.InvalidImage)
    assert "was not there to its end within 2 s" in pipe.error.message


async def test_many_pipes_wait_side_by_side(hasty: None, client: AsyncClient, tmp_path: Path) -> None:
    pipes = [tmp_path / f"{index}.png" for index in range(10)]
    for pipe in pipes:
        os.mkfifo(pipe)
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    results = await results_of(client, *pipes)
    assert [item.ok for item in results] == [False] * 10
    assert loop.time() - begun_s < 15, "one after the other they take 20 s"


async def test_a_pipe_that_somebody_writes_to_is_read(client: AsyncClient, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    writer = threading.Thread(target=(tmp_path / "pipe.png").write_bytes, args=(b"hello",))
    writer.start()
    [result] = await results_of(client, tmp_path / "pipe.png")
    writer.join()
    assert result.regions[0].text == "hello"


@pytest.mark.parametrize(("change", "said"), [("x" * 10, "it grew"), ("", "it was cut")])
def test_a_file_that_changes_while_it_is_read(
    change: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scan.png"
    path.write_bytes(b"y" * 5)
    read = files._read

    def change_first(descriptor: int, most_bytes: int) -> bytes:
        path.write_text(change)
        return read(descriptor, most_bytes)

    monkeypatch.setattr(files, "_read", change_first)
    with pytest.raises(errors.InvalidImage, match=said):
        files.read_file(path)


def test_a_file_that_vanished(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidImage, match="No such file"):
        files.read_file(tmp_path / "gone.png")


def test_files_without_a_size_are_read_to_their_end() -> None:
    """As the kernel's own."""
    assert files.read_file(Path("/proc/self/cmdline"))
    with pytest.raises(errors.ImageTooLarge):
        files.read_file(Path("/dev/zero"), most_bytes=2**20)


def test_an_empty_file_is_for_the_server_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    assert files.read_file(tmp_path / "empty.png") == b""
