"""The outgoing side of the bus: a queue for each namespace, published in order and in batches.

Consecutive operations of one kind and namespace form a run. One call has runs of many namespaces,
and the script executes those of one namespace in order. While batches are in flight the next one
gathers; a namespace has runs in one batch at a time.

Every operation is answered at its deadline at the latest. An operation that Redis did not answer
fails; it is never sent again, since it may have been executed. An operation that was certainly not
executed, because it came late or its owner was not known, is sent again from the head of its queue
while it has time left.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Collection
from functools import partial
from math import inf
from typing import Any, Final

from redis.exceptions import ResponseError

from cluster_pool.backplane.batch_calls import BatchCalls, Call, refused_by
from cluster_pool.backplane.batching import (
    BROADCAST,
    SEND,
    NamespaceQueue,
    Operation,
    Run,
    next_batch,
)
from cluster_pool.backplane.command_connection import CommandConnection
from cluster_pool.backplane.lease_view import LeaseView
from cluster_pool.backplane.owner_lookups import OwnerLookups
from cluster_pool.backplane.pending import Expiry, Pending, fail, fail_late
from cluster_pool.backplane.shard import Shard
from cluster_pool.core.config import Limits
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.core.progress import NOWHERE, Progress
from cluster_pool.core.results import SendResult
from cluster_pool.core.seals import GOOD_FOR, Seals
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import BackplaneUnavailableError, PoolClosedError

log = logging.getLogger("cluster_pool.backplane")

IN_FLIGHT: Final = 2
"""The number of batches in flight, at most."""
UNREACHED: Final = "Redis was not reached in time"
UNANSWERED: Final = "Redis did not answer in time"
LATE: Final = BackplaneUnavailableError("Redis was reached too late; nothing was sent")


class Outbound:
    """Publishes for one node or publisher over its shard.

    ``progress`` tells how far this process has handled what it heard on each channel. It decides
    when a local shortcut cannot overtake an earlier publication.
    """

    def __init__(
        self,
        shard: Shard,
        keys: Keys,
        identity: Identity,
        progress: Progress,
        view: LeaseView,
        *,
        limits: Limits,
        counters: Counters,
        seals: Seals | None,
    ) -> None:
        self._shard = shard
        self._sealed = seals is not None
        self._keys = keys
        self._identity = identity
        self._progress = progress
        self._view = view
        self._batch_calls = BatchCalls(shard, keys, identity, view, counters, seals)
        self._loop = asyncio.get_running_loop()
        self._pending = Pending(limits)
        self._expiry = Expiry(self._loop, self._expire)
        self._queues: dict[str, NamespaceQueue] = {}
        self._ready: OrderedDict[str, NamespaceQueue] = OrderedDict()
        """The queues that wait for their turn; each of them is in ``_queues``. It is not a plain
        dict: finding the first key of that walks past all keys that were removed before it."""
        self._calls: set[Call] = set()
        self._lookups = OwnerLookups(shard, view, self._go_on)
        self._scheduled = False
        self._next_drop = 0.0
        self._open = False

    def start(self) -> None:
        """Begin to publish what is queued."""
        self._open = True

    def stop(self) -> None:
        """Fail what is waiting; what is in flight is answered when the connection ends."""
        self._open = False
        for queue in list(self._queues.values()):
            self._fail_waiting(queue)
            self._retire(queue)
        if not self._pending.count:
            self._expiry.cancel()

    def resume(self) -> None:
        """There is a new connection: publications over the old one will not be heard back."""
        self._view.clear()
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
        return self._pending.count

    # -- queueing --------------------------------------------------------------------------

    def send(
        self, namespace: str, id: str, item: bytes, deadline: float
    ) -> asyncio.Future[SendResult]:
        """Queue one targeted item; the future gives ROUTED, ABSENT or UNREACHABLE."""
        return self._put(SEND, self._keys.channel(namespace), namespace, id, item, deadline)

    def broadcast(self, namespace: str, item: bytes, deadline: float) -> asyncio.Future[int]:
        """Queue one item for a namespace's channel; the future gives how many nodes heard it."""
        return self._put(BROADCAST, self._keys.channel(namespace), namespace, "", item, deadline)

    def send_to_node(
        self, node_id: str, start: str, item: bytes, deadline: float
    ) -> asyncio.Future[int]:
        """Queue one control item for the channel of a node, sealed for this start of it."""
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
        """Whether a publication may still be heard back. One that was lost with the connection
        does not count: it would keep sends from local members until Redis is there again."""
        passed = self._progress.passed
        own = self._identity.own_channel
        unheard = not (passed(queue.channel, queue.barrier) and passed(own, queue.own_barrier))
        return unheard and (self._shard.up or self._behind())

    def _behind(self) -> bool:
        """Whether something that was heard has not been handled yet."""
        return self._progress.dealing or bool(self._shard.receiver.inbox)

    def _put(
        self, kind: int, channel: str, namespace: str, id: str, item: bytes, deadline: float
    ) -> asyncio.Future[Any]:
        if not self._open:
            raise PoolClosedError("not started, or stopped")
        pending = self._pending
        if not pending.admit(len(item)):
            self._drop_cancelled()
            if not pending.admit(len(item)):
                raise pending.full()
        queue = self._queues.get(channel)
        if queue is None:
            members = self._keys.members(namespace) if namespace else ""
            queue = self._queues[channel] = NamespaceQueue(channel, members)
        future: asyncio.Future[Any] = self._loop.create_future()
        queue.waiting.append(Operation(kind, id, item, deadline, future))
        if not queue.flying and channel not in self._ready:
            self._ready[channel] = queue
            self._schedule()
        if deadline < self._expiry.at:
            self._expiry.look_at(deadline)
        return future

    # -- publishing ------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._scheduled and len(self._calls) < IN_FLIGHT:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        while self._ready and len(self._calls) < IN_FLIGHT and self._shard.commands is not None:
            self._write_batch(self._shard.commands)

    def _write_batch(self, commands: CommandConnection) -> None:
        """Write a batch as one call. If it cannot be written, it ends like one whose reply is an
        error."""
        now = self._loop.time()
        batch = next_batch(self._ready, now)
        self._pending.forget(batch.dead)
        for operation in batch.dead:
            fail(operation, self._shard.outage.error(UNREACHED))
        call = Call(batch.runs, routed=batch.sends)
        for run in call.runs:
            run.queue.flying += 1
            if self._sealed:
                run.due = min(run.due, now + GOOD_FOR)
        for queue in batch.queues:
            self._retire(queue)
        if not call.runs:
            return
        self._calls.add(call)
        try:
            written = self._batch_calls.write(commands, call, now)
        except Exception as error:
            log.exception("a batch could not be written")
            written = self._loop.create_future()
            written.set_exception(BackplaneUnavailableError(f"not sent: {error!r}"))
        written.add_done_callback(partial(self._on_reply, call))

    # -- replies ---------------------------------------------------------------------------

    def _on_reply(self, call: Call, reply: asyncio.Future[Any]) -> None:
        self._calls.discard(call)
        error = self._read_reply(call, reply)
        strangers: dict[Operation, bytes] | None = None
        for run in call.runs:
            run.queue.flying -= 1
            if error is not None:
                self._fail_run(run, error)
            elif run.late:
                self._repeat_late(run)
            elif run.strangers is not None:
                self._hold(run, run.strangers)
                strangers = {**(strangers or {}), **run.strangers}
            else:
                self._pending.forget(run.operations)
        if strangers:
            held = [run.queue for run in call.runs if run.strangers is not None]
            self._lookups.begin(strangers, dict.fromkeys(held), call.reading)
        for run in call.runs:
            if not run.queue.flying:
                self._make_ready(run.queue)
        if self._ready:
            self._schedule()

    def _read_reply(self, call: Call, reply: asyncio.Future[Any]) -> BaseException | None:
        """Answer operations by a reply; returns the error for all that have no answer yet."""
        error = self._unanswered() if reply.cancelled() else reply.exception()
        if isinstance(error, ResponseError):
            return refused_by(error)
        if error is not None:
            return error
        try:
            self._batch_calls.answer(call, reply.result())
        except Exception as wrong:
            log.exception("a reply of Redis could not be read")
            return BackplaneUnavailableError(f"unreadable reply: {wrong!r}", maybe_executed=True)
        return None

    def _fail_run(self, run: Run, error: BaseException) -> None:
        self._pending.forget(run.operations)
        for operation in run.operations:
            fail(operation, error)

    def _repeat_late(self, run: Run) -> None:
        """A run came late and was not executed: its operations that have time left go again."""
        past = max(run.due, self._loop.time())
        for operation in run.operations:
            if operation.deadline <= past or operation.future.done():
                fail(operation, LATE)
                self._pending.forget([operation])
            else:
                run.queue.again.append(operation)

    def _hold(self, run: Run, strangers: dict[Operation, bytes]) -> None:
        """Keep the operations of a run that met unknown owners: they go again after the lookup."""
        self._pending.forget([one for one in run.operations if one not in strangers])
        run.queue.again += strangers

    def _make_ready(self, queue: NamespaceQueue) -> None:
        """Nothing of a queue is in flight or looked up any more: give it its next turn, with the
        operations that go again at its head."""
        if queue.again:
            queue.waiting.extendleft(reversed(queue.again))
            queue.again.clear()
        if queue.waiting:
            self._ready[queue.channel] = queue
        if not self._open:
            self._fail_waiting(queue)
        self._retire(queue)

    def _retire(self, queue: NamespaceQueue) -> None:
        """Forget a queue with nothing that waits, is in flight, or will be heard back."""
        if not (queue.waiting or queue.flying):
            self._ready.pop(queue.channel, None)
            if queue.barrier is NOWHERE and queue.own_barrier is NOWHERE:
                self._queues.pop(queue.channel, None)

    def _go_on(self, queues: Collection[NamespaceQueue]) -> None:
        """The lookups of these queues have ended."""
        for queue in queues:
            self._make_ready(queue)
        if self._ready:
            self._schedule()

    # -- waiting ---------------------------------------------------------------------------

    def _drop_done(self, queue: NamespaceQueue) -> None:
        """Drop operations at the head that were answered or cancelled while they waited."""
        while queue.waiting and queue.waiting[0].future.done():
            self._drop_first(queue)

    def _drop_cancelled(self) -> None:
        """Drop all operations that were answered or cancelled while they waited.

        A caller that goes on at the limit would cause this at each call; so it may use a tenth of
        the time at most.
        """
        began = self._loop.time()
        if began < self._next_drop:
            return
        for queue in self._busy():
            gone = [operation for operation in queue.waiting if operation.future.done()]
            if gone:
                queue.waiting = deque(one for one in queue.waiting if not one.future.done())
                self._pending.forget(gone)
                self._retire(queue)
        now = self._loop.time()
        self._next_drop = now + 9 * (now - began)

    def _fail_waiting(self, queue: NamespaceQueue) -> None:
        while queue.waiting:
            fail(self._drop_first(queue), PoolClosedError("stopped"))

    def _drop_first(self, queue: NamespaceQueue) -> Operation:
        operation = queue.waiting.popleft()
        self._pending.forget([operation])
        return operation

    def _expire(self, now: float) -> float:
        """Fail operations past their deadline, queued or in flight; returns the soonest deadline
        of the others."""
        soonest, unreached = inf, self._shard.outage.error(UNREACHED)
        unanswered = self._unanswered()
        for call in self._calls:
            for run in call.runs:
                soonest = min(soonest, fail_late(run.operations, now, unanswered))
        for queue in self._busy():
            for operations in (queue.again, queue.waiting):
                soonest = min(soonest, fail_late(operations, now, unreached))
            self._drop_done(queue)
            self._retire(queue)
        return soonest

    def _unanswered(self) -> BackplaneUnavailableError:
        return self._shard.outage.error(UNANSWERED, maybe_executed=True)

    def _busy(self) -> list[NamespaceQueue]:
        """The queues with operations that wait, are in flight or looked up: a few of all."""
        queues = [run.queue for call in self._calls for run in call.runs]
        queues += [*self._ready.values(), *self._lookups.queues]
        return list(dict.fromkeys(queues))
