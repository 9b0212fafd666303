"""The outgoing side of the bus: what is to be published, in order, in batches.

Each namespace has one queue. Only neighbours of one kind are joined to a run; runs of different
namespaces travel in one call, which carries out those of one namespace in their order. While
batches are in flight the next one gathers, and a namespace has something in one of them at a time.

Every operation is answered at its deadline at the latest. What Redis did not answer fails and says
so; it is never sent again, since it may have been carried out. What was certainly not carried out,
because it came late or its owner was not known, goes again at the head of its queue, if it has time
left.
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
from cluster_pool.backplane.pending import Expiry, Pending, refuse, refuse_late
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
"""Batches on their way at the same time."""
UNREACHED: Final = "Redis was not reached in time"
UNANSWERED: Final = "Redis did not answer in time"
LATE: Final = BackplaneUnavailableError("Redis was reached too late; nothing was sent")


class Outbound:
    """Publishes for one node or publisher over its shard.

    ``progress`` tells how far this process has dealt with what it heard on each channel. It decides
    when a local shortcut cannot overtake what was published before.
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
        """Those of the queues that wait for their turn; never one that is not in ``_queues``. The
        first of a plain dict is found past all that was taken out before it."""
        self._calls: set[Call] = set()
        self._lookups = OwnerLookups(shard, view, self._go_on)
        self._scheduled = False
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
        if not self._pending.count:
            self._expiry.cancel()

    def resume(self) -> None:
        """There is a new link: what was published over the old one will not be heard back."""
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
        """Write a batch, which is one call. What cannot be written ends as one that was answered
        with an error does, and gives back what it took."""
        now = self._loop.time()
        batch = next_batch(self._ready, now)
        self._pending.forget(batch.dead)
        for operation in batch.dead:
            refuse(operation, self._shard.outage.error(UNREACHED))
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
        error = self._take_reply(call, reply)
        strangers: dict[Operation, bytes] | None = None
        for run in call.runs:
            run.queue.flying -= 1
            if error is not None:
                self._refuse_run(run, error)
            elif run.late:
                self._keep_for_another(run)
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
                self._come_back(run.queue)
        if self._ready:
            self._schedule()

    def _take_reply(self, call: Call, reply: asyncio.Future[Any]) -> BaseException | None:
        """Answer who can be answered; gives the error for whoever has no answer yet."""
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

    def _refuse_run(self, run: Run, error: BaseException) -> None:
        self._pending.forget(run.operations)
        for operation in run.operations:
            refuse(operation, error)

    def _keep_for_another(self, run: Run) -> None:
        """Nothing of this run was carried out: what has time left is sent again."""
        past = max(run.due, self._loop.time())
        for operation in run.operations:
            if operation.deadline <= past or operation.future.done():
                refuse(operation, LATE)
                self._pending.forget([operation])
            else:
                run.queue.again.append(operation)

    def _hold(self, run: Run, strangers: dict[Operation, bytes]) -> None:
        """These of a run were not carried out: they are sent again when their owners are known."""
        self._pending.forget([one for one in run.operations if one not in strangers])
        run.queue.again += strangers

    def _come_back(self, queue: NamespaceQueue) -> None:
        """Nothing of a queue is in flight or looked up any more: it may leave again, first of all
        what was not carried out."""
        if queue.again:
            queue.waiting.extendleft(reversed(queue.again))
            queue.again.clear()
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

    def _go_on(self, queues: Collection[NamespaceQueue]) -> None:
        """The owners that these waited for are known."""
        for queue in queues:
            self._come_back(queue)
        if self._ready:
            self._schedule()

    # -- waiting ---------------------------------------------------------------------------

    def _drop_done(self, queue: NamespaceQueue) -> None:
        """Drop what was answered or cancelled while it waited, as far as it is at the head."""
        while queue.waiting and queue.waiting[0].future.done():
            self._drop_first(queue)

    def _drop_cancelled(self) -> None:
        """Drop what was answered or cancelled while it waited, wherever it stands.

        A caller that goes on at the limit would have this done each time; so it takes a tenth of
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

    def _refuse_waiting(self, queue: NamespaceQueue) -> None:
        while queue.waiting:
            refuse(self._drop_first(queue), PoolClosedError("stopped"))

    def _drop_first(self, queue: NamespaceQueue) -> Operation:
        operation = queue.waiting.popleft()
        self._pending.forget([operation])
        return operation

    def _expire(self, now: float) -> float:
        """Fail what has waited, queued or in flight, past its deadline; gives the soonest of the
        other deadlines."""
        soonest, unreached = inf, self._shard.outage.error(UNREACHED)
        unanswered = self._unanswered()
        for call in self._calls:
            for run in call.runs:
                soonest = min(soonest, refuse_late(run.operations, now, unanswered))
        for queue in self._busy():
            for operations in (queue.again, queue.waiting):
                soonest = min(soonest, refuse_late(operations, now, unreached))
            self._drop_done(queue)
            self._retire(queue)
        return soonest

    def _unanswered(self) -> BackplaneUnavailableError:
        return self._shard.outage.error(UNANSWERED, maybe_executed=True)

    def _busy(self) -> list[NamespaceQueue]:
        """The queues of which something waits or is under way: few of those that there are."""
        queues = [run.queue for call in self._calls for run in call.runs]
        queues += [*self._ready.values(), *self._lookups.queues]
        return list(dict.fromkeys(queues))
