"""The outgoing side of the bus: what is to be published, in order, in batches.

Each namespace has one queue. Only neighbours of one kind are joined to a run; runs of different
namespaces travel in one call, and runs of one namespace in calls that follow each other on the
link. While batches are in flight the next one gathers.

Every operation is answered at its deadline at the latest. What Redis did not answer fails and says
so; it is never sent again, since it may have been carried out. A run that Redis refuses as late was
certainly not carried out: who has time left goes again, at the head of its queue.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Final

from redis.exceptions import ResponseError

from cluster_pool.backplane import script_calls, script_words
from cluster_pool.backplane.batching import (
    BROADCAST,
    SEND,
    NamespaceQueue,
    Operation,
    Run,
    next_batch,
)
from cluster_pool.backplane.command_connection import Argument, CommandConnection
from cluster_pool.backplane.refusals import refusal
from cluster_pool.backplane.script_calls import Envelope, SendRun
from cluster_pool.backplane.shard import Shard
from cluster_pool.core.config import Limits
from cluster_pool.core.envelope import unrouted
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.core.progress import NOWHERE, Mark, Progress
from cluster_pool.core.results import SendResult
from cluster_pool.core.seals import BOUND, GOOD_FOR, ROUTED, Seals, own_scope
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import BackplaneUnavailableError, PendingLimitError, PoolClosedError

log = logging.getLogger("cluster_pool.backplane")

IN_FLIGHT: Final = 2
"""Batches on their way at the same time."""
TICK: Final = 0.02
"""Seconds at least between two looks for what has waited too long."""
UNREACHED: Final = "Redis was not reached in time"
UNANSWERED: Final = "Redis did not answer in time"
LATE: Final = BackplaneUnavailableError("Redis was reached too late; nothing was sent")

CODES: Final = {
    ord(script_words.ABSENT): SendResult.ABSENT,
    ord(script_words.ROUTED): SendResult.ROUTED,
    ord(script_words.UNREACHABLE): SendResult.UNREACHABLE,
}
LATE_CODE: Final = ord(script_words.LATE_ITEM)
LATE_MARK: Final = script_words.LATE.encode()


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


class Outbound:
    """Publishes for one node or publisher over its session.

    ``progress`` tells how far this process has dealt with what it heard on each channel. It decides
    when a local shortcut cannot overtake what was published before.
    """

    def __init__(
        self,
        shard: Shard,
        keys: Keys,
        identity: Identity,
        progress: Progress,
        *,
        limits: Limits,
        counters: Counters,
        seals: Seals | None,
    ) -> None:
        self._shard = shard
        self._seals = seals
        self._keys = keys
        self._identity = identity
        self._progress = progress
        self._limits = limits
        self._counters = counters
        self._queues: dict[str, NamespaceQueue] = {}
        self._ready: OrderedDict[str, NamespaceQueue] = OrderedDict()
        """Those of the queues that wait for their turn; never one that is not in ``_queues``. The
        first of a plain dict is found past all that was taken out before it."""
        self._flights: set[Flight] = set()
        self._convoys = 0
        self._pending = 0
        self._pending_bytes = 0
        self._scheduled = False
        self._loop = asyncio.get_running_loop()
        self._expiry: asyncio.TimerHandle | None = None
        self._expires = inf
        self._next_drop = 0.0
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

    def tell(self, node_id: str, start: str, item: bytes, deadline: float) -> asyncio.Future[int]:
        """Queue one item that is no message for the channel of a node; sealed for this start."""
        return self._put(BROADCAST, self._keys.node_channel(node_id), "", start, item, deadline)

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

    def _will_come(self, queue: NamespaceQueue) -> bool:
        """Whether something that was published may still be heard back: not what the end of the
        link has lost, or its connections here could not be sent to until Redis is there again."""
        passed = self._progress.passed
        own = self._identity.own_channel
        unheard = not (passed(queue.channel, queue.barrier) and passed(own, queue.own_barrier))
        return unheard and (self._shard.up or self._behind())

    def _behind(self) -> bool:
        """Whether something that was heard has not been dealt with yet."""
        return self._progress.dealing or bool(self._shard.receiver.inbox)

    def _put(
        self, kind: int, channel: str, namespace: str, id: str, item: bytes, deadline: float
    ) -> asyncio.Future[Any]:
        size = len(item)
        if not self._open:
            raise PoolClosedError("not started, or stopped")
        if not self._has_room(size):
            self._drop_cancelled()
            if not self._has_room(size):
                raise PendingLimitError(
                    f"{self._pending} messages ({self._pending_bytes} bytes) wait for the backplane"
                )
        queue = self._queues.get(channel)
        if queue is None:
            members = self._keys.members(namespace) if namespace else ""
            queue = self._queues[channel] = NamespaceQueue(channel, members)
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

    def _has_room(self, size: int) -> bool:
        limits = self._limits
        return not self._pending or (
            self._pending < limits.pending_messages
            and self._pending_bytes + size <= limits.pending_bytes
        )

    # -- publishing ------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._scheduled and self._convoys < IN_FLIGHT:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        while self._ready and self._convoys < IN_FLIGHT and self._shard.commands is not None:
            self._write_batch(self._shard.commands)

    def _write_batch(self, commands: CommandConnection) -> None:
        """Write a batch: one call after another on the same link, so Redis keeps their order."""
        now = self._loop.time()
        batch = next_batch(self._ready, now)
        self._forget(batch.dead)
        for operation in batch.dead:
            _refuse(operation, self._shard.outage.error(UNREACHED))
        convoy = Convoy(sum(bool(runs) for stage in batch.stages for runs in stage))
        self._convoys += bool(convoy.left)
        for stage in batch.stages:
            for runs in stage:
                for run in runs:
                    run.queue.flying += 1
                    if self._seals is not None:
                        run.due = min(run.due, now + GOOD_FOR)
        for queue in batch.queues:
            self._retire(queue)
        for sends, broadcasts in batch.stages:
            if sends:
                self._fly(commands, Flight(convoy, sends, self._sent), self._send_call)
            if broadcasts:
                self._fly(commands, Flight(convoy, broadcasts, self._published), self._publish_call)

    def _fly(
        self,
        commands: CommandConnection,
        flight: Flight,
        call_of: Callable[[CommandConnection, Flight], asyncio.Future[Any]],
    ) -> None:
        """Write one call. What cannot be written ends as one that was answered with an error does,
        and gives back what it took."""
        self._flights.add(flight)
        try:
            call = call_of(commands, flight)
        except Exception as error:
            log.exception("a batch could not be written")
            call = self._loop.create_future()
            call.set_exception(BackplaneUnavailableError(f"not sent: {error!r}"))
        call.add_done_callback(partial(self._on_reply, flight))

    def _send_call(self, commands: CommandConnection, flight: Flight) -> asyncio.Future[Any]:
        redis_time = self._shard.clock.at
        runs = []
        for run in flight.runs:
            fields: list[Argument] = []
            items = self._sealed(ROUTED, run)
            for operation, item in zip(run.operations, items, strict=True):
                fields += (operation.id, item)
            runs.append(SendRun(run.queue.members, redis_time(run.due), fields))
        return commands.script(
            script_calls.send(
                self._keys,
                sender=self._shard.sender,
                own_node=self._identity.node_id,
                runs=runs,
            )
        )

    def _publish_call(self, commands: CommandConnection, flight: Flight) -> asyncio.Future[Any]:
        envelopes = []
        for run in flight.runs:
            queue, due = run.queue, self._shard.clock.at(run.due)
            items = self._sealed(BOUND, run)
            messages = len(items) if queue.members else 0
            joined = b"".join(items if messages else map(unrouted, items))
            envelopes.append(Envelope(queue.channel, queue.members, due, messages, joined))
        return commands.script(
            script_calls.publish(self._keys, sender=self._shard.sender, envelopes=envelopes)
        )

    def _sealed(self, kind: int, run: Run) -> list[bytes]:
        """What is published for a run; sealed in the order of publishing."""
        if self._seals is None:
            return [operation.item for operation in run.operations]
        seal, start = self._seals.seal, self._identity.start
        now = self._shard.redis_time_at_most()
        scope = self._keys.node_prefix if kind == ROUTED else run.queue.channel
        if run.queue.members:
            return [seal(kind, scope, start, one.item, now) for one in run.operations]
        return [
            seal(kind, own_scope(scope, one.id), start, one.item, now) for one in run.operations
        ]

    # -- replies ---------------------------------------------------------------------------

    def _on_reply(self, flight: Flight, call: asyncio.Future[Any]) -> None:
        self._flights.discard(flight)
        flight.convoy.left -= 1
        self._convoys -= not flight.convoy.left
        error = self._take_reply(flight, call)
        for run in flight.runs:
            run.queue.flying -= 1
            if error is None and run.late:
                self._keep_for_another(run)
            else:
                self._forget(run.operations)
                if error is not None:
                    for operation in run.operations:
                        _refuse(operation, error)
            if not run.queue.flying:
                self._come_back(run.queue)
        if self._ready:
            self._schedule()

    def _take_reply(self, flight: Flight, call: asyncio.Future[Any]) -> BaseException | None:
        """Answer who can be answered; gives the error for whoever has no answer yet."""
        error = self._unanswered() if call.cancelled() else call.exception()
        if isinstance(error, ResponseError):
            return _refused(error)
        if error is not None:
            return error
        try:
            flight.answer(flight.runs, call.result())
        except Exception as wrong:
            log.exception("a reply of Redis could not be read")
            return BackplaneUnavailableError(f"unreadable reply: {wrong!r}", maybe_executed=True)
        return None

    def _keep_for_another(self, run: Run) -> None:
        """Nothing of this run was carried out: who has time left is sent again."""
        past = max(run.due, self._loop.time())
        for operation in run.operations:
            if operation.deadline <= past or operation.future.done():
                _refuse(operation, LATE)
                self._forget([operation])
            else:
                run.queue.late.append(operation)

    def _come_back(self, queue: NamespaceQueue) -> None:
        """Nothing of a queue is in flight any more: it may depart again, what was late first."""
        if queue.late:
            queue.waiting.extendleft(reversed(queue.late))
            queue.late.clear()
        if queue.waiting:
            self._ready[queue.channel] = queue
        if not self._open:
            self._refuse_waiting(queue)
        self._retire(queue)

    def _retire(self, queue: NamespaceQueue) -> None:
        """Forget a queue of which nothing waits, is in flight, or will be heard back."""
        if not (queue.waiting or queue.flying):
            self._ready.pop(queue.channel, None)
            if queue.barrier is NOWHERE and queue.own_barrier is NOWHERE:
                self._queues.pop(queue.channel, None)

    def _sent(self, runs: list[Run], reply: list[Any]) -> None:
        codes, own_mark, refusal = reply
        at = 0
        for run in runs:
            if own_mark and self._shard.listens(run.queue.channel):
                run.queue.own_barrier = Mark.parse(own_mark)
            run.late = codes[at] == LATE_CODE
            if run.late:
                at += len(run.operations)
                continue
            for operation in run.operations:
                result = CODES.get(codes[at])
                at += 1
                if result is None:
                    _refuse(operation, _refused(refusal))
                elif not operation.future.done():
                    operation.future.set_result(result)
            self._counters.published += len(run.operations)

    def _published(self, runs: list[Run], reply: list[Any]) -> None:
        for run, mark, heard in zip(runs, reply[::2], reply[1::2], strict=True):
            run.late = mark == LATE_MARK
            if run.late:
                continue
            if not mark:
                for operation in run.operations:
                    _refuse(operation, _refused(heard))
                continue
            if self._shard.listens(run.queue.channel):
                run.queue.barrier = Mark.parse(mark)
            for operation in run.operations:
                if not operation.future.done():
                    operation.future.set_result(heard)
            self._counters.published += len(run.operations)

    # -- waiting ---------------------------------------------------------------------------

    def _drop_done(self, queue: NamespaceQueue) -> None:
        """Drop what was answered or cancelled while it waited, as far as it is at the head."""
        while queue.waiting and queue.waiting[0].future.done():
            self._drop_first(queue)

    def _drop_cancelled(self) -> None:
        """Drop what was answered or cancelled while it waited, wherever it stands.

        Who calls on at the limit would have this done each time; so it takes a tenth of the time.
        """
        began = self._loop.time()
        if began < self._next_drop:
            return
        for queue in self._busy():
            gone = [operation for operation in queue.waiting if operation.future.done()]
            if gone:
                queue.waiting = deque(one for one in queue.waiting if not one.future.done())
                self._forget(gone)
                self._retire(queue)
        now = self._loop.time()
        self._next_drop = now + 9 * (now - began)

    def _refuse_waiting(self, queue: NamespaceQueue) -> None:
        while queue.waiting:
            _refuse(self._drop_first(queue), PoolClosedError("stopped"))

    def _drop_first(self, queue: NamespaceQueue) -> Operation:
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
        unreached = self._shard.outage.error(UNREACHED)
        soonest = _refuse_late(self._in_flight(), now, self._unanswered())
        for queue in self._busy():
            soonest = min(soonest, _refuse_late(queue.waiting, now, unreached))
            self._drop_done(queue)
            self._retire(queue)
        if soonest < inf:
            self._look_at(max(soonest, now + TICK))

    def _unanswered(self) -> BackplaneUnavailableError:
        return self._shard.outage.error(UNANSWERED, maybe_executed=True)

    def _busy(self) -> list[NamespaceQueue]:
        """The queues of which something waits or is in flight: few of those that there are."""
        flying = [run.queue for flight in self._flights for run in flight.runs]
        return list({queue.channel: queue for queue in (*self._ready.values(), *flying)}.values())

    def _in_flight(self) -> Iterator[Operation]:
        for queue in self._busy():
            yield from queue.late
        for flight in self._flights:
            for run in flight.runs:
                yield from run.operations


def _refuse_late(operations: Iterable[Operation], now: float, error: BaseException) -> float:
    """Fail what is past its deadline; gives the soonest deadline of the rest."""
    soonest = inf
    for operation in operations:
        if operation.deadline <= now:
            _refuse(operation, error)
        elif not operation.future.done():
            soonest = min(soonest, operation.deadline)
    return soonest


def _refused(why: bytes | ResponseError) -> BackplaneUnavailableError:
    return BackplaneUnavailableError(refusal(why))


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
