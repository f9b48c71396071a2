"""The asynchronous shell around the scheduler: it tells it what happens and carries out what it decides."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, cast

from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import DeadlineExceeded, SluicewayError, StartupError, Unavailable, describe
from sluiceway_runtime.logs import of_request
from sluiceway_runtime.pool import submission as answers_of
from sluiceway_runtime.pool.clock import Clock, LoopClock, Timer
from sluiceway_runtime.pool.observer import PoolObserver
from sluiceway_runtime.pool.payload import Payload
from sluiceway_runtime.pool.policy import actions, events
from sluiceway_runtime.pool.policy.items import Item, Journal
from sluiceway_runtime.pool.policy.limits import PoolLimits, Timing
from sluiceway_runtime.pool.policy.scheduler import Scheduler
from sluiceway_runtime.pool.policy.statistics import PoolLoad, PoolStatistics, WorkerState
from sluiceway_runtime.pool.snapshot import snapshot
from sluiceway_runtime.pool.spec import WorkerSpec
from sluiceway_runtime.pool.submission import Answers, Outcome, Submission, Work
from sluiceway_runtime.pool.transport import messages
from sluiceway_runtime.pool.transport.link import Ended, Heard, Link
from sluiceway_runtime.pool.transport.messages import FromWorker
from sluiceway_runtime.pool.transport.process import WorkerProcess
from sluiceway_runtime.priority import Priority

__all__ = ["Pool"]

logger = logging.getLogger(__name__)


class Pool:
    """Worker processes behind one bounded queue. All methods belong to the event loop that `start` ran on.

    Args:
        spec: what the workers run, and where.
        limits: bounds of the queue, the batches and the workers.
        name: for the log.
        timing: time constants; tests shrink them.
        clock: tests may move time by hand.
        journal: is told of batches that are over.

    Attributes:
        limits: as given.
        observer: is told of batches, if there is one.
        able_changed: called when `able` is another.

    Resource handling:
        `start` and `close` belong together; `close` may be called at any time, and again. After it no process and no
        descriptor is left. If the front is killed instead, its workers end by themselves.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        limits: PoolLimits,
        *,
        name: str,
        timing: Timing | None = None,
        clock: Clock | None = None,
        journal: Journal = lambda *_: None,
    ) -> None:
        self._spec = spec
        self.limits = limits
        self._name = name
        self._scheduler = Scheduler(
            len(spec.placements), spec.credits, limits, timing, overlap=spec.overlap, journal=journal
        )
        self.observer: PoolObserver | None = None
        self._given_clock = clock
        self._next_id = 0
        self._links: dict[int, Link] = {}
        self._facts: dict[int, Mapping[str, Any]] = {}
        self._events: deque[events.Event] = deque()
        self._feeding = False
        self._tick_due = False
        self._timer: Timer | None = None
        self._timer_at_s = 0.0
        self._startup: asyncio.Future[None] | None = None
        self._changed: asyncio.Event = asyncio.Event()
        self._was_able = False
        self.able_changed: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        states = ", ".join(worker.state.value for worker in self._scheduler.workers)
        return f"<{type(self).__name__} {self._name}: {self._scheduler.queued} queued, workers {states}>"

    @property
    def facts(self) -> tuple[Mapping[str, Any], ...]:
        """What each worker's `setup` returned, and under `process` its pid, cores, thread caps and threads."""
        return tuple(self._facts[index] for index in sorted(self._facts))

    @property
    def placements(self) -> Sequence[Placement]:
        """Where the workers are, by index."""
        return self._spec.placements

    @property
    def able(self) -> bool:
        """Whether work is worth sending: a worker takes it, and this machine is not taken to be ill."""
        return self._scheduler.able

    async def start(self) -> None:
        """Start every worker, and return when all are ready.

        Raises:
            StartupError: a worker cannot start; the message is its own. Nothing is left running.
        """
        self._clock: Clock = self._given_clock or LoopClock()
        self._startup = asyncio.get_running_loop().create_future()
        self._feed(events.StartRequested())
        try:
            await self._startup
        except BaseException:
            await self.close()
            raise
        logger.info("pool %s: %d workers are ready", self._name, len(self._spec.placements))

    def submit(
        self,
        payload: Payload,
        *,
        request_id: str,
        deadline: Deadline,
        priority: Priority = Priority.NORMAL,
        group: Hashable = None,
        cost: int = 1,
    ) -> asyncio.Future[Outcome]:
        """Queue one item. Where batches hold several, it is dispatched on the next turn of the loop, so that items
        submitted together share them.

        Args:
            payload: must not change until the item is answered.
            request_id: items are served fairly between requests.
            deadline: the item is answered by then, one way or the other.
            priority: class of the item.
            group: only items of one group share a batch (a width, a model).
            cost: summed against `max_batch_cost` (pixels).

        Returns:
            A future of the answer; cancelling it cancels the item. It may raise DeadlineExceeded, ModelFailed,
            Quarantined, Unavailable, or whatever error the handler returned for the item.

        Raises:
            QueueFull: with `retry_after_s`; the queue is full or the wait would outlast the deadline.
            Unavailable: the pool is starting, stopping, or has no worker that works.
            DeadlineExceeded: the deadline has passed already.
            Quarantined: this very item has killed a worker before.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def answered(answers: Answers) -> None:
            result = answers.results[0]
            if future.done():
                return
            if isinstance(result, SluicewayError):
                future.set_exception(result)
            else:
                future.set_result(Outcome(result, answers.queue_ms, answers.compute_ms, answers.worker))

        submission = self.submit_many(
            (Work(payload, group, cost),),
            request_id=request_id,
            deadline=deadline,
            priority=priority,
            answered=answered,
        )
        for _, error in submission.refused:
            raise error
        future.add_done_callback(lambda done: submission.cancel() if done.cancelled() else None)
        return future

    def submit_many(
        self,
        work: Sequence[Work],
        *,
        request_id: str,
        deadline: Deadline,
        priority: Priority = Priority.NORMAL,
        answered: Callable[[Answers], None],
    ) -> Submission:
        """Queue the items of one request; much cheaper than one by one.

        Args:
            work: the items.
            request_id: see `submit`.
            deadline: of all of them.
            priority: of all of them.
            answered: called with answers as they come, each item once, unless the submission is cancelled before. It is
                called from amid the pool's own work and has only to take note: it must not call the pool.

        Returns:
            What was refused, and a way to cancel the rest. An item is refused with the errors that `submit` raises; if
            there is no room or no time for one, those after it are refused with it.

        Raises:
            Unavailable: the pool was not started.
        """
        if self._startup is None:
            raise Unavailable("the server is starting")
        first_id = self._next_id
        self._next_id += len(work)
        submission = Submission(work, first_id, answered, self._cancel)
        if not work:
            return submission
        at_s = deadline.at_s
        items = [
            Item(
                first_id + place, request_id, at_s, priority, group,
                cost, payload.size_bytes, payload, submission, place,
            )
            for place, (payload, group, cost) in enumerate(work)
        ]  # fmt: skip
        if self.limits.max_batch == 1:
            self._feed(events.ItemsArrived(items), events.Tick())  # a batch of one waits for nobody
            return submission
        self._feed(events.ItemsArrived(items))
        if not self._tick_due:
            self._tick_due = True
            asyncio.get_running_loop().call_soon(self._tick)
        return submission

    def load(self) -> PoolLoad:
        """How busy it is: what of `statistics` each response tells."""
        scheduler = self._scheduler
        ready = sum([worker.state is WorkerState.READY for worker in scheduler.workers]) if scheduler.able else 0
        return PoolLoad(
            queued=scheduler.queued,
            running=scheduler.unanswered - scheduler.queued,
            capacity=ready * self._spec.credits * self.limits.max_batch,
            queue_ms=scheduler.queue_age_s(self._clock.now_s()) * 1000 if scheduler.queued else 0.0,
        )

    def statistics(self) -> PoolStatistics:
        """How things stand."""
        pids = {index: link.pid for index, link in self._links.items()}
        now_s = self._clock.now_s() if self._startup is not None else 0.0
        return snapshot(self._scheduler, self.load(), pids, now_s)

    async def drain(self, grace_s: float) -> bool:
        """Take nothing new, and wait for what was accepted.

        Returns:
            Whether all of it was answered within the grace time.
        """
        if self._startup is None:
            return True
        self._feed(events.DrainRequested())
        try:
            async with asyncio.timeout(grace_s):
                while self._scheduler.unanswered:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Fail what is left with Unavailable and stop the workers: SIGTERM, then SIGKILL. Nothing is left after it."""
        if self._startup is None:
            return
        if not self._startup.done():
            self._startup.set_exception(StartupError("the pool was closed while it started"))
        self._feed(events.CloseRequested())
        while not self._scheduler.stopped:
            self._changed.clear()
            await self._changed.wait()
        await asyncio.gather(*(link.wait_ended() for link in self._links.values()))
        self._links.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Telling the scheduler

    def _feed(self, *happened: events.Event) -> None:
        """Report events and carry out what follows; what that brings about in turn is reported after them."""
        self._events.extend(happened)
        if self._feeding:
            return
        self._feeding = True
        try:
            while self._events:
                for action in self._scheduler.on_event(self._events.popleft(), self._clock.now_s()):
                    self._carry_out(action)
        finally:
            self._feeding = False
        self._changed.set()
        self._tell_changes()
        self._set_timer()

    def _tick(self) -> None:
        self._tick_due = False
        self._feed(events.Tick())

    def _wake(self) -> None:
        self._timer = None
        self._feed(events.Tick())

    def _cancel(self, submission: Submission) -> None:
        self._feed(events.CancelRequested(submission.item_ids))

    def _set_timer(self) -> None:
        at_s = self._scheduler.next_wakeup(self._clock.now_s())
        if at_s is None or (self._timer is not None and self._timer_at_s <= at_s):
            return  # a timer that fires too early only asks again
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_at(at_s, self._wake)
        self._timer_at_s = at_s

    def _tell_changes(self) -> None:
        if self._startup is not None and not self._startup.done() and self._scheduler.complete:
            self._startup.set_result(None)
        if (able := self.able) != self._was_able:
            self._was_able = able
            self.able_changed()

    # Hearing of workers

    def _heard(self, worker: int, message: FromWorker) -> None:
        match message:
            case messages.Ready(facts, memory_bytes):
                self._facts[worker] = facts
                self._feed(events.WorkerReady(worker, memory_bytes))
            case messages.StartFailed(text):
                self._feed(events.SetupFailed(worker, text))
            case messages.Result(batch_id, results, compute_ms, memory_bytes):
                self._feed(events.BatchDone(worker, batch_id, results, compute_ms, memory_bytes))
            case messages.Raised(batch_id, text):
                self._feed(events.BatchRaised(worker, batch_id, text))
            case messages.Lost(batch_id, text):
                self._batch_lost(worker, batch_id, text)
            case messages.Leaving():
                self._feed(events.WorkerLeaving(worker))

    def _batch_lost(self, worker: int, batch_id: int, text: str) -> None:
        logger.error("pool %s: a batch was lost between front and worker %d: %s", self._name, worker, text)
        error = Unavailable("the server is short of descriptors or memory", retry_after_s=1.0)
        self._feed(events.BatchLost(worker, batch_id, error))

    # Carrying out

    def _carry_out(self, action: actions.Action) -> None:
        match action:
            case actions.Dispatch(worker, batch_id, items):
                self._dispatch(worker, batch_id, items)
            case actions.Succeed():
                if self.observer is not None:
                    self.observer.computed(action.compute_ms / 1000)
                answers_of.succeed(action)
            case actions.Fail():
                if self.observer is not None and isinstance(action.error, DeadlineExceeded):
                    self.observer.expired(action.items, self._clock.now_s())
                answers_of.fail(action)
            case actions.Refuse():
                answers_of.refuse(action)
            case actions.Recall(worker, batch_id, positions):
                self._links[worker].recall(messages.Recall(batch_id, positions))
            case actions.StartWorker(worker):
                self._links[worker] = self._launch(
                    self._spec.placements[worker],
                    lambda message: self._heard(worker, message),
                    lambda end: self._feed(events.WorkerDied(worker, end.reason, end.never_reached, end.broken)),
                )
            case actions.StopWorker(worker):
                self._links[worker].stop()
            case actions.KillWorker(worker):
                self._links[worker].kill()
            case actions.GiveUp(message):
                if self._startup is not None and not self._startup.done():
                    self._startup.set_exception(StartupError(message))
                self._events.append(events.CloseRequested())
            case actions.Note(message, request_id):
                logger.warning("pool %s: %s", self._name, message, extra=of_request(request_id))

    def _dispatch(self, worker: int, batch_id: int, items: Sequence[Item]) -> None:
        if self.observer is not None:
            self.observer.dispatched(items, self._clock.now_s())
        try:
            self._links[worker].send(messages.Run(batch_id, tuple([cast("Payload", item.payload) for item in items])))
        except OSError as error:
            self._batch_lost(worker, batch_id, str(error))
        except Exception as error:  # whatever pickling somebody's object may raise
            self._feed(events.BatchRaised(worker, batch_id, f"the batch cannot be sent: {describe(error)}"))

    def _launch(self, placement: Placement, heard: Heard, ended: Ended) -> Link:
        """Start one worker; the in-process twin overrides this."""
        return WorkerProcess(self._spec, placement, heard, ended)
