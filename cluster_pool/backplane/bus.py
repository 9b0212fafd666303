"""The outgoing side of the bus: what is to be published, in order, in batches.

Each namespace has one queue. Only neighbours of one kind are joined to a run; runs of different
namespaces travel in one call, and runs of one namespace in calls that follow each other on the
link. While batches are in flight the next one gathers.

Every operation is answered at its deadline at the latest. What Redis did not answer fails and says
so; it is never sent again, since it may have been carried out. A batch that Redis refuses as late
was certainly not carried out: who has time left goes again, at the head of its queue.
"""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Final

from redis.exceptions import ResponseError

from cluster_pool.backplane.link import Argument, Link
from cluster_pool.backplane.session import Session
from cluster_pool.core.config import Limits
from cluster_pool.core.envelope import unrouted
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.core.progress import NOWHERE, Mark, Progress
from cluster_pool.core.results import SendResult
from cluster_pool.core.seals import BOUND, ROUTED, Seals
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import BackplaneUnavailableError, PendingLimitError, PoolClosedError

log = logging.getLogger("cluster_pool.backplane")

BATCH_ITEMS: Final = 500
BATCH_BYTES: Final = 1024 * 1024
IN_FLIGHT: Final = 2
"""Batches on their way at the same time."""
MIN_SHARE: Final = 8
"""Items of one namespace in a batch, however many namespaces are ready."""
TICK: Final = 0.02
"""Seconds at least between two looks for what has waited too long."""
UNREACHED: Final = BackplaneUnavailableError("Redis was not reached in time")
UNANSWERED: Final = BackplaneUnavailableError("Redis did not answer in time", maybe_executed=True)
LATE: Final = BackplaneUnavailableError("Redis was reached too late; nothing was sent")

SEND, BROADCAST = 0, 1
CODES: Final = {
    48: SendResult.ABSENT,
    49: SendResult.ROUTED,
    50: SendResult.UNREACHABLE,
}


class Operation:
    """One item on its way to Redis. ``future`` gives a SendResult, or how many nodes heard it."""

    __slots__ = ("deadline", "future", "id", "item", "kind")

    def __init__(
        self,
        kind: int,
        id: str,
        item: bytes,
        deadline: float,
        future: asyncio.Future[Any],
    ) -> None:
        self.kind = kind
        self.id = id
        self.item = item
        self.deadline = deadline
        self.future = future


class Queue:
    """What one namespace (or one node's channel) has waiting, in flight, or not heard back yet.

    The barriers are the marks of the last messages that were published from here, on the channel
    of the namespace and on this node's own, and will be heard here.
    """

    __slots__ = ("barrier", "channel", "flying", "late", "members", "own_barrier", "waiting")

    def __init__(self, channel: str, members: str) -> None:
        self.channel = channel
        self.members = members
        self.waiting: deque[Operation] = deque()
        self.late: list[Operation] = []
        """What Redis refused as late, until all that was in flight with it has come back."""
        self.flying = 0
        self.barrier = NOWHERE
        self.own_barrier = NOWHERE


Run = tuple[Queue, list[Operation]]
Stage = tuple[list[Run], list[Run]]
"""Runs of sends and runs of broadcasts, of one namespace each."""


@dataclass(slots=True)
class Convoy:
    """The calls that left together, of which ``left`` have not been answered.

    ``due`` is the earliest deadline of all that travels in them. Redis carries none of them out
    after it, so that a call is late whenever one before it was, and order is kept.
    """

    left: int
    due: float


@dataclass(slots=True, eq=False)
class Flight:
    """The runs of one call, and what deals with its reply."""

    convoy: Convoy
    runs: list[Run]
    answer: Callable[[list[Run], list[Any]], None]


class Bus:
    """Publishes for one node or publisher over its session.

    ``progress`` tells how far this process has dealt with what it heard on each channel,
    ``all_handed_on()`` whether it has dealt with everything; they decide when a local shortcut
    cannot overtake what was published before.
    """

    def __init__(
        self,
        session: Session,
        keys: Keys,
        identity: Identity,
        progress: Progress,
        all_handed_on: Callable[[], bool],
        *,
        limits: Limits,
        counters: Counters,
        seals: Seals | None,
    ) -> None:
        self._session = session
        self._seals = seals
        self._keys = keys
        self._identity = identity
        self._progress = progress
        self._all_handed_on = all_handed_on
        self._limits = limits
        self._counters = counters
        self._queues: dict[str, Queue] = {}
        self._ready: dict[str, Queue] = {}
        """Those of the queues that wait for their turn; never one that is not in ``_queues``."""
        self._flights: set[Flight] = set()
        self._convoys = 0
        self._pending = 0
        self._pending_bytes = 0
        self._scheduled = False
        self._loop = asyncio.get_running_loop()
        self._expiry: asyncio.TimerHandle | None = None
        self._expires = inf
        self._open = False

    def start(self) -> None:
        """Begin to publish what is queued."""
        self._open = True

    def stop(self) -> None:
        """End; what is still waiting fails, what is in flight is answered by the link's end."""
        self._open = False
        for queue in list(self._queues.values()):
            self._refuse_waiting(queue)
            self._retire(queue)
        if self._expiry is not None and not self._pending:
            self._expiry.cancel()

    def resume(self) -> None:
        """There is a new link: what was published over the old one will not be heard back."""
        for channel in list(self._queues):
            self.forget(channel)
        self._schedule()

    def forget(self, channel: str) -> None:
        """A channel is no longer subscribed: nothing of it will be heard back."""
        queue = self._queues.get(channel)
        if queue is not None:
            queue.barrier = queue.own_barrier = NOWHERE
            self._retire(queue)

    @property
    def pending(self) -> int:
        """How many operations wait or are in flight."""
        return self._pending

    # -- queueing --------------------------------------------------------------------------

    def send(
        self, namespace: str, id: str, item: bytes, deadline: float
    ) -> asyncio.Future[SendResult]:
        """Queue one targeted item; the future gives ROUTED, ABSENT or UNREACHABLE."""
        return self._put(SEND, self._keys.channel(namespace), namespace, id, item, deadline)

    def broadcast(self, namespace: str, item: bytes, deadline: float) -> asyncio.Future[int]:
        """Queue one item for a namespace's channel; the future gives how many nodes Redis fed."""
        return self._put(BROADCAST, self._keys.channel(namespace), namespace, "", item, deadline)

    def tell(self, node_id: str, item: bytes, deadline: float) -> asyncio.Future[int]:
        """Queue one item that is no message for the channel of a node."""
        return self._put(BROADCAST, self._keys.node_channel(node_id), "", "", item, deadline)

    def quiet(self, namespace: str) -> bool:
        """Whether nothing of ``namespace`` from here is queued, in flight, or not heard back."""
        queue = self._queues.get(self._keys.channel(namespace))
        if queue is None:
            return True
        self._drop_done(queue)
        if queue.waiting or queue.flying or self._will_come(queue):
            return False
        queue.barrier = queue.own_barrier = NOWHERE
        self._retire(queue)
        return True

    def _will_come(self, queue: Queue) -> bool:
        """Whether something that was published may still be heard back: not what the end of the
        link has lost, or its connections here could not be sent to until Redis is there again."""
        passed = self._progress.passed
        own = self._identity.own_channel
        unheard = not (passed(queue.channel, queue.barrier) and passed(own, queue.own_barrier))
        return unheard and (self._session.up or not self._all_handed_on())

    def _put(
        self, kind: int, channel: str, namespace: str, id: str, item: bytes, deadline: float
    ) -> asyncio.Future[Any]:
        limits = self._limits
        size = len(item)
        if not self._open:
            raise PoolClosedError("not started, or stopped")
        if self._pending >= limits.pending_messages or (
            self._pending and self._pending_bytes + size > limits.pending_bytes
        ):
            raise PendingLimitError(
                f"{self._pending} messages ({self._pending_bytes} bytes) wait for the backplane"
            )
        queue = self._queues.get(channel)
        if queue is None:
            members = self._keys.members(namespace) if namespace else ""
            queue = self._queues[channel] = Queue(channel, members)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending += 1
        self._pending_bytes += size
        queue.waiting.append(Operation(kind, id, item, deadline, future))
        if not queue.flying and channel not in self._ready:
            self._ready[channel] = queue
            self._schedule()
        if deadline < self._expires:
            self._look_at(deadline)
        return future

    # -- publishing ------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._scheduled and self._convoys < IN_FLIGHT:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        while self._ready and self._convoys < IN_FLIGHT and self._session.link is not None:
            self._depart(self._session.link)

    def _depart(self, link: Link) -> None:
        """Write a batch: one call after another on the same link, so Redis keeps their order."""
        stages = self._next_stages()
        if stages:
            convoy = Convoy(sum(bool(runs) for stage in stages for runs in stage), _due(stages))
            self._convoys += 1
            for sends, broadcasts in stages:
                if sends:
                    self._fly(link, Flight(convoy, sends, self._sent), self._send_call)
                if broadcasts:
                    self._fly(link, Flight(convoy, broadcasts, self._published), self._publish_call)

    def _next_stages(self) -> list[Stage]:
        """As many runs of each namespace that is ready as a batch and fairness allow; a stage holds
        one run of each. Who has not had its turn keeps its place."""
        items, size = BATCH_ITEMS, BATCH_BYTES
        share = max(MIN_SHARE, BATCH_ITEMS // len(self._ready))
        stages: list[Stage] = []
        while self._ready and items > 0 and size > 0:
            queue = self._ready.pop(next(iter(self._ready)))
            left = min(share, items)
            for number in itertools.count():
                run = self._run_of(queue, left, size) if left > 0 and size > 0 else []
                if not run:
                    break
                if number == len(stages):
                    stages.append(([], []))
                stages[number][run[0].kind].append((queue, run))
                queue.flying += 1
                left -= len(run)
                items -= len(run)
                size -= sum([len(operation.item) for operation in run])
            self._retire(queue)
        return stages

    def _run_of(self, queue: Queue, items: int, size: int) -> list[Operation]:
        run: list[Operation] = []
        waiting = queue.waiting
        while waiting and len(run) < items:
            head = waiting[0]
            if head.future.done():
                self._drop_first(queue)
                continue
            if run and (head.kind != run[0].kind or size < len(head.item)):
                break
            size -= len(head.item)
            run.append(waiting.popleft())
        return run

    def _fly(
        self,
        link: Link,
        flight: Flight,
        call_of: Callable[[Link, Flight], asyncio.Future[Any]],
    ) -> None:
        """Write one call. What cannot be written ends as one that was answered with an error does,
        and gives back what it took."""
        self._flights.add(flight)
        try:
            call = call_of(link, flight)
        except Exception as error:
            log.exception("a batch could not be written")
            call = self._loop.create_future()
            call.set_exception(BackplaneUnavailableError(f"not sent: {error!r}"))
        call.add_done_callback(partial(self._landed, flight))

    def _send_call(self, link: Link, flight: Flight) -> asyncio.Future[Any]:
        node_prefix = self._keys.node_prefix
        arguments: list[Argument] = []
        for queue, run in flight.runs:
            arguments += (queue.members, len(run))
            for operation, item in zip(run, self._sealed(ROUTED, node_prefix, run), strict=True):
                arguments += (operation.id, item)
        return link.script(
            "send",
            [self._keys.leases, self._keys.incarnations],
            self._session.clock.at(flight.convoy.due),
            self._session.sender,
            node_prefix,
            self._identity.node_id,
            *arguments,
        )

    def _publish_call(self, link: Link, flight: Flight) -> asyncio.Future[Any]:
        arguments: list[Argument] = []
        for queue, run in flight.runs:
            items = self._sealed(BOUND, queue.channel, run)
            if queue.members:
                arguments += (queue.channel, len(items), b"".join(items))
            else:
                arguments += (queue.channel, 0, b"".join(map(unrouted, items)))
        not_after = self._session.clock.at(flight.convoy.due)
        return link.script("publish", [], not_after, self._session.sender, *arguments)

    def _sealed(self, kind: int, scope: str, run: list[Operation]) -> list[bytes]:
        """What is published for a run; sealed in the order of publishing."""
        items = [operation.item for operation in run]
        if self._seals is None:
            return items
        start, now = self._identity.start, self._session.redis_time()
        return [self._seals.seal(kind, scope, start, item, now) for item in items]

    # -- replies ---------------------------------------------------------------------------

    def _landed(self, flight: Flight, call: asyncio.Future[Any]) -> None:
        self._flights.discard(flight)
        flight.convoy.left -= 1
        self._convoys -= not flight.convoy.left
        error = self._take_reply(flight, call)
        for queue, run in flight.runs:
            queue.flying -= 1
            if error is LATE:
                self._keep_for_another(queue, run, flight.convoy.due)
            else:
                self._forget(run)
                if error is not None:
                    for operation in run:
                        _refuse(operation, error)
            if not queue.flying:
                self._come_back(queue)
        if self._ready:
            self._schedule()

    def _take_reply(self, flight: Flight, call: asyncio.Future[Any]) -> BaseException | None:
        """Answer who can be answered; gives the error for whoever has no answer yet."""
        error = UNANSWERED if call.cancelled() else call.exception()
        if isinstance(error, ResponseError):
            return _refused(str(error).encode())
        if error is not None:
            return error
        try:
            reply = call.result()
            if reply[0] != b"OK":
                return LATE
            flight.answer(flight.runs, reply)
        except Exception as wrong:
            log.exception("a reply of Redis could not be read")
            return BackplaneUnavailableError(f"unreadable reply: {wrong!r}", maybe_executed=True)
        return None

    def _keep_for_another(self, queue: Queue, run: list[Operation], due: float) -> None:
        """Nothing of this run was carried out: who has time left is sent again."""
        past = max(due, self._loop.time())
        for operation in run:
            if operation.deadline <= past or operation.future.done():
                _refuse(operation, LATE)
                self._forget([operation])
            else:
                queue.late.append(operation)

    def _come_back(self, queue: Queue) -> None:
        """Nothing of a queue is in flight any more: it may depart again, what was late first."""
        if queue.late:
            queue.waiting.extendleft(reversed(queue.late))
            queue.late.clear()
        if queue.waiting:
            self._ready[queue.channel] = queue
        if not self._open:
            self._refuse_waiting(queue)
        self._retire(queue)

    def _retire(self, queue: Queue) -> None:
        """Forget a queue of which nothing waits, is in flight, or will be heard back."""
        if not (queue.waiting or queue.flying):
            self._ready.pop(queue.channel, None)
            if queue.barrier is NOWHERE and queue.own_barrier is NOWHERE:
                self._queues.pop(queue.channel, None)

    def _sent(self, runs: list[Run], reply: list[Any]) -> None:
        codes, own_mark, refusal = reply[1:]
        at = 0
        for queue, run in runs:
            if own_mark:
                queue.own_barrier = Mark.parse(own_mark)
            for operation in run:
                result = CODES.get(codes[at])
                at += 1
                if result is None:
                    _refuse(operation, _refused(refusal))
                elif not operation.future.done():
                    operation.future.set_result(result)
        self._counters.published += at

    def _published(self, runs: list[Run], reply: list[Any]) -> None:
        at = 1
        for queue, run in runs:
            mark, heard = reply[at], reply[at + 1]
            at += 2
            if not mark:
                for operation in run:
                    _refuse(operation, _refused(heard))
                continue
            if self._session.listens(queue.channel):
                queue.barrier = Mark.parse(mark)
            for operation in run:
                if not operation.future.done():
                    operation.future.set_result(heard)
            self._counters.published += len(run)

    # -- waiting ---------------------------------------------------------------------------

    def _drop_done(self, queue: Queue) -> None:
        """Drop what was answered or cancelled while it waited, as far as it is at the head."""
        while queue.waiting and queue.waiting[0].future.done():
            self._drop_first(queue)

    def _refuse_waiting(self, queue: Queue) -> None:
        while queue.waiting:
            _refuse(self._drop_first(queue), PoolClosedError("stopped"))

    def _drop_first(self, queue: Queue) -> Operation:
        operation = queue.waiting.popleft()
        self._forget([operation])
        return operation

    def _forget(self, run: list[Operation]) -> None:
        """These operations wait no longer, and are not in flight."""
        self._pending -= len(run)
        self._pending_bytes -= sum([len(operation.item) for operation in run])

    def _look_at(self, moment: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expires = moment
        self._expiry = self._loop.call_at(moment, self._expire)

    def _expire(self) -> None:
        """Fail what has waited, queued or in flight, past its deadline; then look for the next."""
        self._expiry, self._expires = None, inf
        now = self._loop.time()
        soonest = _refuse_late(self._in_flight(), now, UNANSWERED)
        for queue in list(self._queues.values()):
            soonest = min(soonest, _refuse_late(queue.waiting, now, UNREACHED))
            self._drop_done(queue)
            self._retire(queue)
        if soonest < inf:
            self._look_at(max(soonest, now + TICK))

    def _in_flight(self) -> Iterator[Operation]:
        for queue in self._queues.values():
            yield from queue.late
        for flight in self._flights:
            for _, run in flight.runs:
                yield from run


def _due(stages: list[Stage]) -> float:
    """The earliest deadline of a batch."""
    return min(
        operation.deadline
        for stage in stages
        for runs in stage
        for _, run in runs
        for operation in run
    )


def _refuse_late(operations: Iterable[Operation], now: float, error: BaseException) -> float:
    """Fail what is past its deadline; gives the soonest deadline of the rest."""
    soonest = inf
    for operation in operations:
        if operation.deadline <= now:
            _refuse(operation, error)
        elif not operation.future.done():
            soonest = min(soonest, operation.deadline)
    return soonest


def _refused(why: bytes) -> BackplaneUnavailableError:
    return BackplaneUnavailableError(f"Redis refused: {why.decode(errors='replace')}")


def _refuse(operation: Operation, error: BaseException) -> None:
    """Fail one operation with an exception of its own, so that tracebacks do not pile up."""
    if operation.future.done():
        return
    if isinstance(error, BackplaneUnavailableError):
        own: BaseException = BackplaneUnavailableError(
            str(error), maybe_executed=error.maybe_executed
        )
        own.__cause__ = error
    else:
        own = type(error)(*error.args)
    operation.future.set_exception(own)
