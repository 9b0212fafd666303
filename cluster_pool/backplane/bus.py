"""The outgoing side of the bus: what is to be published, in order, in batches.

Each namespace has one queue. Only neighbours of one kind are joined to a run; runs of different
namespaces travel in one call, and runs of one namespace in calls that follow each other on the
link. While batches are in flight the next one gathers. Nothing is retried: an operation that Redis
did not answer fails and says so.
"""

import asyncio
import itertools
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
from cluster_pool.core.keys import Keys
from cluster_pool.core.results import SendResult
from cluster_pool.core.seals import BOUND, ROUTED, Seals
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import BackplaneUnavailableError, PendingLimitError, PoolClosedError

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
    """What one namespace (or one node's channel) has waiting, in flight, or not heard back yet."""

    __slots__ = ("barrier", "channel", "flying", "members", "own_barrier", "waiting")

    def __init__(self, channel: str, members: str) -> None:
        self.channel = channel
        self.members = members
        self.waiting: deque[Operation] = deque()
        self.flying = 0
        self.barrier = 0
        self.own_barrier = 0


Run = tuple[Queue, list[Operation]]
Stage = tuple[list[Run], list[Run]]
"""Runs of sends and runs of broadcasts, of one namespace each."""


@dataclass(slots=True)
class Convoy:
    """The calls that left together, of which ``left`` have not been answered."""

    left: int


@dataclass(slots=True, eq=False)
class Flight:
    """The runs of one call, and what deals with its reply."""

    convoy: Convoy
    runs: list[Run]
    answer: Callable[[list[Run], list[Any]], None]


class Bus:
    """Publishes for one node or publisher over its session.

    ``handed_on(channel)`` tells the number of the last message of a channel that this process
    has dealt with, ``all_handed_on()`` whether it has dealt with all that it heard; they decide
    when a local shortcut cannot overtake what was published before.
    """

    def __init__(
        self,
        session: Session,
        keys: Keys,
        node_id: str,
        handed_on: Callable[[str], int],
        all_handed_on: Callable[[], bool],
        *,
        limits: Limits,
        counters: Counters,
        seals: Seals | None,
    ) -> None:
        self._session = session
        self._seals = seals
        self._keys = keys
        self._node_id = node_id
        self._own = keys.node_channel(node_id)
        self._handed_on = handed_on
        self._all_handed_on = all_handed_on
        self._limits = limits
        self._counters = counters
        self._queues: dict[str, Queue] = {}
        self._ready: dict[str, Queue] = {}
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
        for queue in self._queues.values():
            while queue.waiting:
                _refuse(self._drop_first(queue), PoolClosedError("stopped"))
        self._ready.clear()

    def resume(self) -> None:
        """There is a new link: what was published over the old one will not be heard back."""
        for channel in list(self._queues):
            self.forget(channel)
        self._schedule()

    def forget(self, channel: str) -> None:
        """A channel is no longer subscribed: nothing of it will be heard back."""
        queue = self._queues.get(channel)
        if queue is not None:
            queue.barrier = queue.own_barrier = 0
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
        if queue.waiting or queue.flying:
            return False
        if self._will_come(queue):
            return False
        del self._queues[queue.channel]
        return True

    def _will_come(self, queue: Queue) -> bool:
        """Whether something that was published may still be heard back: not what the end of the
        link has lost, or its connections here could not be sent to until Redis is there again."""
        unheard = (
            self._handed_on(queue.channel) < queue.barrier
            or self._handed_on(self._own) < queue.own_barrier
        )
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
            convoy = Convoy(sum(bool(runs) for stage in stages for runs in stage))
            self._convoys += 1
            for sends, broadcasts in stages:
                if sends:
                    self._fly_sends(link, convoy, sends)
                if broadcasts:
                    self._fly_broadcasts(link, convoy, broadcasts)

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

    def _fly_sends(self, link: Link, convoy: Convoy, runs: list[Run]) -> None:
        node_prefix = self._keys.node_prefix
        arguments: list[Argument] = []
        for queue, run in runs:
            arguments += (queue.members, len(run))
            for operation, item in zip(run, self._sealed(ROUTED, node_prefix, run), strict=True):
                arguments += (operation.id, item)
        call = link.script(
            "send",
            [self._keys.leases, self._keys.incarnations],
            self._not_after(runs),
            self._session.sender,
            node_prefix,
            self._node_id,
            *arguments,
        )
        self._take_off(call, Flight(convoy, runs, self._sent))

    def _fly_broadcasts(self, link: Link, convoy: Convoy, runs: list[Run]) -> None:
        arguments: list[Argument] = []
        for queue, run in runs:
            items = self._sealed(BOUND, queue.channel, run)
            if queue.members:
                arguments += (queue.channel, len(items), b"".join(items))
            else:
                arguments += (queue.channel, 0, b"".join(map(unrouted, items)))
        call = link.script("publish", [], self._not_after(runs), self._session.sender, *arguments)
        self._take_off(call, Flight(convoy, runs, self._published))

    def _sealed(self, kind: int, scope: str, run: list[Operation]) -> list[bytes]:
        """What is published for a run; sealed in the order of publishing."""
        items = [operation.item for operation in run]
        if self._seals is None:
            return items
        start, now = self._session.start_name, self._session.redis_time()
        return [self._seals.seal(kind, scope, start, item, now) for item in items]

    def _not_after(self, runs: list[Run]) -> int:
        latest = max([operation.deadline for _, run in runs for operation in run])
        return self._session.clock.at(latest)

    def _take_off(self, call: asyncio.Future[Any], flight: Flight) -> None:
        self._flights.add(flight)
        call.add_done_callback(partial(self._landed, flight))

    def _landed(self, flight: Flight, call: asyncio.Future[Any]) -> None:
        self._flights.discard(flight)
        flight.convoy.left -= 1
        self._convoys -= not flight.convoy.left
        error = None if call.cancelled() else call.exception()
        if error is None:
            reply = call.result()
            if reply[0] == b"OK":
                flight.answer(flight.runs, reply)
            else:
                error = BackplaneUnavailableError("Redis was reached too late; nothing was sent")
        elif isinstance(error, ResponseError):
            error = _refused(str(error).encode())
        for queue, run in flight.runs:
            queue.flying -= 1
            self._forget(run)
            if error is not None:
                for operation in run:
                    _refuse(operation, error)
            if queue.waiting and not queue.flying:
                self._ready[queue.channel] = queue
            self._retire(queue)
        if self._ready:
            self._schedule()

    def _retire(self, queue: Queue) -> None:
        """Forget a queue of which nothing waits, is in flight, or will be heard back."""
        if not (queue.waiting or queue.flying or queue.barrier or queue.own_barrier):
            self._queues.pop(queue.channel, None)

    def _sent(self, runs: list[Run], reply: list[Any]) -> None:
        codes, own_number, refusal = reply[1:]
        at = 0
        for queue, run in runs:
            queue.own_barrier = own_number or queue.own_barrier
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
            number, heard = reply[at], reply[at + 1]
            at += 2
            if number < 0:
                for operation in run:
                    _refuse(operation, _refused(heard))
                continue
            if self._session.listens(queue.channel):
                queue.barrier = number
            for operation in run:
                if not operation.future.done():
                    operation.future.set_result(heard)
            self._counters.published += len(run)

    # -- waiting ---------------------------------------------------------------------------

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
            while queue.waiting and queue.waiting[0].future.done():
                self._drop_first(queue)
        if soonest < inf:
            self._look_at(max(soonest, now + TICK))

    def _in_flight(self) -> Iterator[Operation]:
        for flight in self._flights:
            for _, run in flight.runs:
                yield from run


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
