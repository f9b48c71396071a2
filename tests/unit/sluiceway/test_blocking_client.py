"""The blocking client: the same behaviour from ordinary threads."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from waiting import wait_until

from sluiceway import Client, errors
from sluiceway.client import JobDone, RetryPolicy, SourceFailed


async def test_process(server: Any) -> None:
    def work() -> list[str | None]:
        with Client(server.address) as client:
            return [region.text for region in client.process(b"hello").regions]

    assert await asyncio.to_thread(work) == ["hello", "world"]


async def test_errors_and_events(server: Any) -> None:
    def work() -> list[type]:
        with Client(server.address) as client:
            with pytest.raises(errors.InvalidImage):
                client.process(b"bad")
            return [type(event) for event in client.events(b"bad")]

    assert await asyncio.to_thread(work) == [SourceFailed, JobDone]


async def test_process_many_draws_from_a_blocking_iterable_on_one_thread(server: Any) -> None:
    threads: set[int] = set()

    def slow() -> Iterator[bytes]:
        for index in range(5):
            threads.add(threading.get_ident())
            time.sleep(0.02)
            yield str(index).encode()

    def work() -> list[str | None]:
        with Client(server.address) as client:
            return [result.regions[0].text for result in client.process_many(slow())]

    assert await asyncio.to_thread(work) == ["0", "1", "2", "3", "4"]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_many_threads_share_one_client(server: Any) -> None:
    def work() -> list[str | None]:
        with Client(server.address) as client, ThreadPoolExecutor(8) as pool:
            results = pool.map(lambda index: client.process(str(index).encode()), range(40))
            return [result.regions[0].text for result in results]

    assert await asyncio.to_thread(work) == [str(index) for index in range(40)]


async def test_leaving_a_loop_early_cancels_on_the_server(server: Any) -> None:
    def work() -> None:
        with Client(server.address) as client:
            events = client.events(b"hang")
            next(events)
            events.close()  # type: ignore[attr-defined]

    await asyncio.to_thread(work)
    await asyncio.wait_for(server.fake.cancelled.wait(), 30)


async def test_close_ends_the_thread_and_may_be_repeated(server: Any) -> None:
    def work() -> None:
        client = Client(server.address)
        client.describe()
        names = [thread.name for thread in threading.enumerate()]
        assert "sluiceway-client" in names
        client.close()
        client.close()
        assert "sluiceway-client" not in [thread.name for thread in threading.enumerate()]

    await asyncio.to_thread(work)


async def test_a_forgotten_client_ends_its_thread(server: Any) -> None:
    def work() -> None:
        client = Client(server.address)
        client.describe()
        del client
        wait_until(lambda: all(thread.name != "sluiceway-client" for thread in threading.enumerate()))

    await asyncio.to_thread(work)


@dataclass(frozen=True)
class LongPause(RetryPolicy):
    """Tells when the client is about to wait for a very long time."""

    begun: threading.Event = field(default_factory=threading.Event)

    def delay_s(self, error: errors.SluicewayError, failures: int, remaining_s: float | None) -> float | None:
        self.begun.set()
        return 3600


def closes_under(client: Client, call: Callable[[], object], under_way: Callable[[], object]) -> None:
    """Close a client while another thread is in a call; that call must end with Cancelled."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(call)
        under_way()
        client.close()
        with pytest.raises(errors.Cancelled):
            running.result(30)


async def test_close_ends_a_pause_between_two_tries(server: Any, refusal: Any) -> None:
    server.fake.refusals = [refusal(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")]
    pause = LongPause()
    client = Client(server.address, retry=pause)
    await asyncio.to_thread(closes_under, client, lambda: client.process(b"x"), lambda: pause.begun.wait(30))


async def test_close_ends_a_call(server: Any) -> None:
    client = Client(server.address)
    loop = asyncio.get_running_loop()

    def under_way() -> None:
        asyncio.run_coroutine_threadsafe(server.fake.arrived.wait(), loop).result(30)

    await asyncio.to_thread(closes_under, client, lambda: list(client.events(b"hang")), under_way)
    await asyncio.wait_for(server.fake.cancelled.wait(), 30)


async def test_close_ends_the_wait_for_a_source_that_is_being_read(server: Any, tmp_path: Path) -> None:
    pipe = tmp_path / "slow.png"
    os.mkfifo(pipe)
    writers: list[int] = []
    client = Client(server.address)
    try:
        await asyncio.to_thread(
            closes_under,
            client,
            lambda: client.process(pipe),
            # Opening returns when somebody has opened the other end to read it.
            lambda: writers.append(os.open(pipe, os.O_WRONLY)),
        )
    finally:
        for descriptor in writers:
            os.close(descriptor)


async def test_close_ends_the_wait_for_the_next_of_many_sources(server: Any) -> None:
    drawn, released = threading.Event(), threading.Event()

    def stuck() -> Iterator[bytes]:
        drawn.set()
        released.wait(60)
        yield b"x"

    client = Client(server.address)
    try:
        await asyncio.to_thread(
            closes_under, client, lambda: list(client.process_many(stuck())), lambda: drawn.wait(30)
        )
    finally:
        released.set()


async def test_an_interrupt_as_something_is_begun_leaves_nobody_waiting(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = asyncio.run_coroutine_threadsafe

    def interrupted(work: Any, loop: asyncio.AbstractEventLoop) -> Any:
        monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", begin)
        begin(work, loop)
        raise KeyboardInterrupt

    def work() -> None:
        with Client(server.address) as client:
            results = client.process_many([b"hang"])
            monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
            with pytest.raises(KeyboardInterrupt):
                next(results)

    await asyncio.wait_for(asyncio.to_thread(work), 30)


async def test_a_closed_client_says_so(server: Any) -> None:
    def work() -> None:
        with Client(server.address) as client:
            half_read = client.events(b"hang")
            next(half_read)
        for call in (lambda: client.process(b"x"), client.describe, lambda: next(half_read)):
            with pytest.raises(errors.Cancelled, match="closed"):
                call()

    await asyncio.to_thread(work)


# Each is a process of its own, told the server's address: what it does to itself is for no test process to bear.
PROGRAMS = {
    "an interrupt stays an interrupt": """
        import os, threading
        try:
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            list(client.process_many([b"hang"]))
        except KeyboardInterrupt:
            print("as it should be")
        """,
    "an interrupt that does not wake whom it is for": """
        import os, threading
        try:
            # So it is where it comes just before a thread begins to wait; here another thread catches it.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            list(client.process_many([b"hang"]))
        except KeyboardInterrupt:
            print("as it should be")
        """,
    "an iterator that the garbage collector finds on the client's own thread": """
        import gc, threading
        events = client.events(b"hang")
        next(events)
        gc.disable()
        cycle = [events]
        cycle.append(cycle)
        del events, cycle
        collected = threading.Event()
        client._thread._loop.call_soon_threadsafe(lambda: (gc.collect(), collected.set()))
        assert collected.wait(20)
        assert client.describe().server_version
        print("as it should be")
        """,
    "a client that the garbage collector finds on its own thread": """
        import gc, sys, threading
        sys.unraisablehook = lambda fault: print(fault)
        client.describe()
        gc.disable()
        loop = client._thread._loop
        client.cycle = client
        del client
        collected = threading.Event()
        loop.call_soon_threadsafe(lambda: (gc.collect(), collected.set()))
        assert collected.wait(20)
        [thread.join(20) for thread in threading.enumerate() if thread.name == "sluiceway-client"]
        assert loop.is_closed()
        print("as it should be")
        """,
    "sources that never have a next one do not keep the process from ending": """
        import threading
        def sources():
            yield b"x"
            threading.Event().wait()
        with client:
            next(client.process_many(sources()))
        print("as it should be")
        """,
    "sources that end the process end the run": """
        def sources():
            yield b"x"
            raise SystemExit("no more")
        try:
            list(client.process_many(sources()))
        except RuntimeError as error:
            assert "no more" in str(error)
            print("as it should be")
        """,
    "a fork says what it lacks": """
        import os, signal
        client.describe()
        def refuses(call):
            try:
                call()
            except errors.SluicewayError as error:
                return "fork" in str(error)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            refused = refuses(client.describe) and refuses(lambda: Client(address))
            client.close()
            os._exit(0 if refused else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert client.describe().server_version
        print("as it should be")
        """,
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
async def test_what_a_process_does_to_itself(program: str, server: Any) -> None:
    # Who starts the tests in the background ignores interrupts, and so would these processes.
    head = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    head += "from sluiceway import Client, errors; address = sys.argv[1]; client = Client(address)\n"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", head + textwrap.dedent(program), server.address, stdout=asyncio.subprocess.PIPE
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), 45)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert (said.decode(), process.returncode) == ("as it should be\n", 0)
