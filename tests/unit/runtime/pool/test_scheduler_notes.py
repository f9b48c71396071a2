"""What the log is told of items: in each line the request's id, so that a request is found in every server's log."""

from __future__ import annotations

from sluiceway_runtime.pool import Payload, PoolLimits
from sluiceway_runtime.pool.policy import actions, events
from sluiceway_runtime.pool.policy.items import Item
from sluiceway_runtime.pool.policy.scheduler import Scheduler
from sluiceway_runtime.priority import Priority


def item(number: int, request_id: str) -> Item:
    return Item(number, request_id, 1000.0, Priority.NORMAL, None, 1, 1, Payload(number))


def notes(told: list[actions.Action]) -> list[tuple[str, str]]:
    return [(note.message, note.request_id) for note in told if isinstance(note, actions.Note)]


def ready() -> Scheduler:
    scheduler = Scheduler(2, 1, PoolLimits(max_batch=4))
    scheduler.on_event(events.StartRequested(), 0.0)
    for worker in range(2):
        scheduler.on_event(events.WorkerReady(worker, 0), 0.0)
    return scheduler


def test_every_request_that_a_dead_worker_had_is_named_once() -> None:
    scheduler = ready()
    scheduler.on_event(events.ItemsArrived([item(1, "a"), item(2, "a")]), 1.0)
    scheduler.on_event(events.ItemsArrived([item(3, "b")]), 1.0)
    [*sent] = [action for action in scheduler.on_event(events.Tick(), 1.0) if isinstance(action, actions.Dispatch)]
    had = {it.request_id for action in sent if action.worker == sent[0].worker for it in action.items}
    told = notes(scheduler.on_event(events.WorkerDied(sent[0].worker, "it was ended by SIGKILL"), 2.0))
    assert told[0] == (f"worker {sent[0].worker} ended: it was ended by SIGKILL", "")
    assert sorted(name for _, name in told[1:]) == sorted(had)


def test_what_is_quarantined_and_what_a_model_raised_on_names_its_request() -> None:
    scheduler = ready()
    scheduler.on_event(events.ItemsArrived([item(1, "good")]), 0.5)
    [first] = [it for it in scheduler.on_event(events.Tick(), 0.5) if isinstance(it, actions.Dispatch)]
    scheduler.on_event(events.BatchDone(first.worker, first.batch_id, (Payload(None),)), 0.6)
    scheduler.on_event(events.ItemsArrived([item(2, "bad")]), 1.0)
    [sent] = [it for it in scheduler.on_event(events.Tick(), 1.0) if isinstance(it, actions.Dispatch)]
    told = notes(scheduler.on_event(events.BatchRaised(sent.worker, sent.batch_id, "ValueError: no"), 2.0))
    [(message, name)] = told
    assert message.startswith("the model raised on an item: ValueError: no; ")
    assert name == "bad"
