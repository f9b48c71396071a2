"""The small parts: payloads, handlers, quarantine, rate, limits, queue bookkeeping, and the clock for tests."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from named_payload import Named
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import DeadlineExceeded, StartupError
from sluiceway_runtime.pool import Payload, Placement, PoolLimits, WorkerSpec, queue_items_for
from sluiceway_runtime.pool.handler import checked, load_handler
from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.pool.policy.quarantine import Quarantine, Verdict
from sluiceway_runtime.pool.policy.queue import FairQueue
from sluiceway_runtime.pool.policy.rate import ServiceRate
from sluiceway_runtime.pool.testing import FakeClock, InProcessPool
from sluiceway_runtime.priority import Priority


def item(number: int, size: int = 1, content: str | None = None, **more: Any) -> Item:
    named = Named(str(number) if content is None else content)
    facts = {"priority": Priority.NORMAL, "group": None, "cost": 1} | more
    return Item(number, "r", 10.0, size_bytes=size, payload=named, **facts)


def test_size_counts_bytes_not_elements():
    wide = memoryview(bytes(80)).cast("d")
    assert Payload(None, (wide, b"abc", bytearray(2))).size_bytes == 85


def test_digest_is_of_content_and_of_where_buffers_end():
    assert Payload({"a": 1}, (b"ab", b"c")).digest() == Payload({"a": 1}, (bytearray(b"ab"), memoryview(b"c"))).digest()
    assert Payload(None, (b"ab", b"c")).digest() != Payload(None, (b"a", b"bc")).digest()
    assert Payload(1, (b"ab",)).digest() != Payload(2, (b"ab",)).digest()


def test_what_cannot_be_pickled_has_a_digest_too():
    payload = Payload(lambda: None, (b"x",))
    assert payload.digest() == payload.digest()


@pytest.mark.parametrize("answers", [[], [Payload(1), Payload(2)], ["text"], [None]])
def test_a_handler_is_held_to_its_contract(answers):
    with pytest.raises(TypeError, match="the handler returned"):
        checked(answers, 1)


@pytest.mark.parametrize("name", ["json", "json:", ":dumps", "json:nothing", "no_such_module_at_all:x"])
def test_a_handler_that_cannot_be_found_says_its_name(name):
    with pytest.raises(StartupError, match=name):
        load_handler(name, {})


@pytest.mark.parametrize("bad", [{"max_batch": 0}, {"queue_items": 0}, {"queue_bytes": 0}, {"batch_timeout_s": 0}])
def test_limits_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match=r"^(max_batch, queue_items and queue_bytes must be at least 1|.* positive)$"):
        PoolLimits(**bad)


def test_a_queue_holds_what_several_callers_send_at_once():
    assert queue_items_for(3, 1000) == 3
    assert queue_items_for("auto", 2) == 256
    # The widest window of an orchestrator is three times what a replica says that it works on at once.
    assert queue_items_for("auto", 384) >= 4 * 3 * 384


def test_times_below_a_second_make_sense():
    assert PoolLimits(batch_timeout_s=0.5, start_timeout_s=0.5).batch_timeout_s == 0.5


@pytest.mark.parametrize("bad", [{"placements": ()}, {"credits": 0}])
def test_a_pool_without_workers_or_credits_is_refused(bad):
    good = {"placements": (Placement(0, "cpu", None, 1),), "credits": 1}
    with pytest.raises(ValueError, match="at least"):
        WorkerSpec("a:b", {}, **(good | bad))


def test_quarantine_hashes_nothing_unless_the_size_is_known():
    quarantine = Quarantine(10.0)
    quarantine.remember(item(1, size=10), Verdict.GUILTY, 0.0)
    assert quarantine.verdict(item(2, size=11, content=""), 0.0) is Verdict.INNOCENT


def test_quarantine_is_bounded_and_forgets_the_oldest():
    quarantine = Quarantine(10.0, capacity=3)
    for number in range(5):
        quarantine.remember(item(number, size=number), Verdict.GUILTY, 0.0)
    assert len(quarantine) == 3
    verdicts = [quarantine.verdict(item(number, size=number), 1.0) for number in (1, 2)]
    assert verdicts == [Verdict.INNOCENT, Verdict.GUILTY]


def test_quarantine_forgets_what_is_older_than_a_verdict_holds():
    quarantine = Quarantine(10.0)
    for number in range(4):
        quarantine.remember(item(number, size=number), Verdict.GUILTY, 3.0 * number)
    quarantine.remember(item(0, size=0), Verdict.GUILTY, 9.0)  # again, so it is the youngest
    verdicts = [quarantine.verdict(item(number, size=number), 14.0) for number in range(4)]
    assert verdicts == [Verdict.GUILTY, Verdict.INNOCENT, Verdict.GUILTY, Verdict.GUILTY]
    assert len(quarantine) == 3
    assert quarantine.verdict(item(3, size=3), 19.0) is Verdict.INNOCENT
    assert len(quarantine) == 0


def test_quarantine_keeps_the_latest_verdict_and_acquits():
    quarantine = Quarantine(10.0)
    quarantine.remember(item(1), Verdict.SUSPECT, 0.0)
    quarantine.remember(item(1), Verdict.GUILTY, 0.0)
    assert (quarantine.verdict(item(1), 0.0), len(quarantine)) == (Verdict.GUILTY, 1)
    quarantine.acquit(item(1))
    quarantine.acquit(item(2))
    assert (quarantine.verdict(item(1), 0.0), len(quarantine)) == (Verdict.INNOCENT, 0)


def test_quarantine_hashes_nothing_of_a_size_that_is_forgotten():
    quarantine = Quarantine(10.0)
    first, second = item(1, size=10), item(2, size=10)
    for one in (first, second, second):
        quarantine.remember(one, Verdict.GUILTY, 0.0)
    quarantine.acquit(first)
    assert quarantine.verdict(second, 0.0) is Verdict.GUILTY, "another of that size is still there"
    quarantine.acquit(second)
    assert quarantine.verdict(item(3, size=10, content=""), 0.0) is Verdict.INNOCENT
    assert len(quarantine) == 0


def test_rate_starts_with_the_first_batch_and_follows_slowly():
    rate = ServiceRate()
    assert rate.interval_s(1) == 0.0
    rate.observe(1.0, 10)
    assert rate.interval_s(2) == pytest.approx(0.05)
    rate.observe(11.0, 10)
    assert 0.1 < rate.item_s < 1.1
    assert rate.interval_s(0) == rate.item_s


def test_queue_books_are_right_whatever_leaves_in_whatever_order():
    queue = FairQueue(ageing_s=1.0)
    items = []
    for number in range(300):
        items.append(item(number, size=2, cost=3, group=number % 3, priority=Priority(number % 3)))
        queue.push(items[-1:], 0.0)
    for number in range(0, 300, 2):
        queue.remove(items[number])
    queue.age(1.5)
    assert (len(queue), queue.size_bytes, queue.cost) == (150, 300, 450)
    left = []
    while batch := queue.pop_batch(7, 15):
        assert len({one.group for one in batch}) == 1
        assert len(batch) <= 5
        left += [one.id for one in batch]
    assert sorted(left) == list(range(1, 300, 2))
    assert (len(queue), queue.size_bytes, queue.cost) == (0, 0, 0)


def test_queue_keeps_no_trace_of_what_has_left():
    """A long-lived old item must not hold the entries of thousands that were cancelled behind it."""
    queue = FairQueue(ageing_s=1000.0)
    queue.push([item(0)], 0.0)
    for number in range(1, 5000):
        gone = item(number)
        queue.push([gone], 0.0)
        queue.remove(gone)
    (group,) = (group for level in queue._levels for group in level._groups.values())
    assert len(group.heap) < 200
    assert all(len(level._entered) < 200 for level in queue._levels)
    assert len(queue._arrived) < 200


def test_fake_clock_calls_what_is_due_each_at_its_own_moment():
    clock = FakeClock(0.0)
    seen: list[tuple[str, float]] = []
    clock.call_at(2.0, lambda: seen.append(("b", clock.now_s())))
    clock.call_at(1.0, lambda: clock.call_at(1.5, lambda: seen.append(("nested", clock.now_s()))))
    clock.call_at(1.7, lambda: seen.append(("cancelled", clock.now_s()))).cancel()
    clock.call_at(9.0, lambda: seen.append(("late", clock.now_s())))
    clock.advance(3.0)
    assert seen == [("nested", 1.5), ("b", 2.0)]
    assert clock.now_s() == 3.0


GATE = threading.Event()


class Waiting:
    """A handler in a thread, held until the test opens the gate."""

    def __init__(self, config):
        pass

    def setup(self, placement):
        return {}

    def run(self, batch):
        GATE.wait(30)
        return list(batch)


async def test_a_pool_on_a_fake_clock_keeps_deadlines_without_waiting():
    clock = FakeClock()
    spec = WorkerSpec(f"{__name__}:Waiting", {}, (Placement(0, "cpu", None, 1),))
    pool = InProcessPool(spec, PoolLimits(), name="test", clock=clock)
    await pool.start()
    future = pool.submit(Payload(1), request_id="r", deadline=Deadline(clock.now_s() + 3600))
    clock.advance(3599)
    assert not future.done()
    clock.advance(1)
    with pytest.raises(DeadlineExceeded):
        await future
    GATE.set()
    await pool.close()
