"""The outgoing side of the bus: a queue for each namespace, published in order and in batches.

Consecutive operations of one kind and namespace form a run. One call has runs of many namespaces,
and the script executes those of one namespace in order. While batches are in flight the next one
gathers; a namespace has runs in one batch at a time.

On a cluster each shard has batches of its own in flight, with one call for each namespace.

Every operation is answered at its deadline at the latest. An operation that Redis did not answer
fails; it is never sent again, since it may have been executed. An operation that was certainly not
executed, because it came late, its owner was not known or its slot is elsewhere, is sent again from
the head of its queue while it has time left.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Collection
from functools import partial
from typing import Any, Final

from redis.exceptions import ResponseError

from cluster_pool.backplane.batch_calls import BatchCalls, refused_by
from cluster_pool.backplane.batching import (
    BROADCAST,
    SEND,
    NamespaceQueue,
    Operation,
    Run,
    next_batch,
)
from cluster_pool.backplane.command_connection import CommandConnection
from cluster_pool.backplane.lanes import Call, Lane, Lanes, calls_of
from cluster_pool.backplane.lease_view import LeaseView
from cluster_pool.backplane.owner_lookups import OwnerLookups
from cluster_pool.backplane.pauses import Pauses
from cluster_pool.backplane.pending import Expiry, Pending, fail, fail_late, late, unreached
from cluster_pool.backplane.refusals import is_elsewhere
from cluster_pool.backplane.shard import Shard
from cluster_pool.backplane.slots import slot_of
from cluster_pool.backplane.topology import Topology
from cluster_pool.core.config import Limits
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.core.progress import NOWHERE, Progress
from cluster_pool.core.results import SendResult
from cluster_pool.core.seals import GOOD_FOR, Seals
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import BackplaneUnavailableError, PoolClosedError

log = logging.getLogger("cluster_pool.backplane")

Future = asyncio.Future[Any]
IN_FLIGHT: Final = 2
"""The number of batches in flight, at most."""


class Outbound:
    """Publishes for one node or publisher over its shards.

    ``progress`` tells how far this process has handled what it heard on each channel. It decides
    when a local shortcut cannot overtake an earlier publication.
    """

    def __init__(
        self,
        topology: Topology,
        keys: Keys,
        identity: Identity,
        progress: Progress,
        view: LeaseView,
        *,
        limits: Limits,
        counters: Counters,
        seals: Seals | None,
    ) -> None:
        self._topology = topology
        self._sealed = seals is not None
        self._keys = keys
        self._identity = identity
        self._progress = progress
        self._view = view
        self._batch_calls = BatchCalls(topology.home, keys, identity, view, counters, seals)
        self._loop = asyncio.get_running_loop()
        self._pending = Pending(limits)
        self._expiry = Expiry(self._loop, self._expire)
        self._queues: dict[str, NamespaceQueue] = {}
        self._lanes = Lanes(topology.home)
        way = keys.start_prefix, self._lanes.of(topology.home)
        self._one_way = None if topology.spans else way  # of every queue, with one Redis
        self._pauses = Pauses(self._go_on)
        self._lookups = OwnerLookups(topology.home, view, self._pauses, self._go_on)
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

    def resume(self, shard: Shard) -> None:
        """A shard has a new connection: publications over the old one will not be heard back."""
        if shard is self._topology.home:
            self._view.clear()
        lane = self._lanes.of(shard)
        for channel in [name for name, queue in self._queues.items() if queue.lane is lane]:
            self.forget(channel)
        self._schedule(lane)

    def move(self) -> None:
        """Slots have moved: assign their queues to the lanes of their present shards."""
        for channel, queue in list(self._queues.items()):
            lane = self._lanes.of(self._topology.of(channel))
            if queue.lane is lane:
                continue
            waits = queue.lane.ready.pop(channel, None)
            queue.lane = lane
            if waits is not None:
                lane.ready[channel] = queue
                self._schedule(lane)
            self.forget(channel)
        self._lanes.keep(self._topology.shards)

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
        self,
        namespace: str,
        id: str,
        item: bytes,
        deadline: float,
        future: Future | None = None,
        kept: int = 0,
    ) -> asyncio.Future[SendResult]:
        """Queue one targeted item; ``kept``: by a history. The future gives its result."""
        future = future or self._loop.create_future()
        one = Operation(SEND, id, item, deadline, future, kept)
        return self._put(self._keys.channel(namespace), namespace, one)

    def broadcast(self, namespace: str, item: bytes, deadline: float) -> asyncio.Future[int]:
        """Queue one item for a namespace's channel; the future gives how many nodes heard it."""
        operation = Operation(BROADCAST, "", item, deadline, self._loop.create_future())
        return self._put(self._keys.channel(namespace), namespace, operation)

    def send_to_node(
        self, node_id: str, start: str, item: bytes, deadline: float
    ) -> asyncio.Future[int]:
        """Queue one control item for the channel of a node, sealed for this start of it."""
        operation = Operation(BROADCAST, start, item, deadline, self._loop.create_future())
        return self._put(self._keys.node_channel(node_id), "", operation)

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
        own = queue.routed + self._identity.start
        unheard = not (passed(queue.channel, queue.barrier) and passed(own, queue.own_barrier))
        return unheard and (queue.lane.shard.up or self._behind())

    def _behind(self) -> bool:
        """Whether something that was heard has not been handled yet."""
        return self._progress.dealing or bool(self._topology.home.receiver.inbox)

    def _put(self, channel: str, namespace: str, operation: Operation) -> Future:
        if not self._open:
            raise PoolClosedError("not started, or stopped")
        pending, size = self._pending, len(operation.item)
        if not pending.admit(size):
            self._drop_cancelled()
            if not pending.admit(size):
                raise pending.full()
        queue = self._queues.get(channel)
        if queue is None:
            members = self._keys.members(namespace) if namespace else ""
            routed, lane = self._one_way or self._way(channel, namespace)
            queue = self._queues[channel] = NamespaceQueue(channel, members, routed, lane)
        queue.waiting.append(operation)
        lane = queue.lane
        if not queue.flying and channel not in lane.ready:
            lane.ready[channel] = queue
            self._schedule(lane)
        if operation.deadline < self._expiry.at:
            self._expiry.look_at(operation.deadline)
        return operation.future

    def _way(self, channel: str, namespace: str) -> tuple[str, Lane]:
        """How a queue leaves: the channel of starts without a name, and the lane."""
        lane = self._lanes.of(self._topology.of(channel))
        return self._topology.routed_prefix(namespace), lane

    # -- publishing ------------------------------------------------------------------------

    def _schedule(self, lane: Lane) -> None:
        if not lane.scheduled and lane.batches < IN_FLIGHT:
            lane.scheduled = True
            self._loop.call_soon(self._flush, lane)

    def _flush(self, lane: Lane) -> None:
        lane.scheduled = False
        while lane.ready and lane.batches < IN_FLIGHT and lane.shard.commands is not None:
            self._write_batch(lane, lane.shard.commands)

    def _write_batch(self, lane: Lane, commands: CommandConnection) -> None:
        """Write a batch: a call that cannot be written ends like one whose reply is an error."""
        now = self._loop.time()
        batch = next_batch(lane.ready, now)
        self._pending.forget(batch.dead)
        for operation in batch.dead:
            fail(operation, unreached(lane, ""))
        runs = batch.runs
        for run in runs:
            run.queue.flying += 1
            if self._sealed:
                run.due = min(run.due, now + GOOD_FOR)
        for queue in batch.queues:
            self._retire(queue)
        if not runs:
            return
        lane.batches += 1
        whole = [Call(lane, runs, routed=batch.sends)] if lane.whole else None
        for call in whole or calls_of(lane, runs):
            lane.calls.add(call)
            try:
                written = self._batch_calls.write(commands, call, now)
            except Exception as error:
                log.exception("a batch could not be written")
                written = self._loop.create_future()
                written.set_exception(BackplaneUnavailableError(f"not sent: {error!r}"))
            written.add_done_callback(partial(self._on_reply, call))

    # -- replies ---------------------------------------------------------------------------

    def _on_reply(self, call: Call, reply: asyncio.Future[Any]) -> None:
        call.lane.calls.discard(call)
        call.lane.batches -= call.last
        error = self._read_reply(call, reply)
        strangers: dict[Operation, bytes] | None = None
        elsewhere = error is not None and self._topology.spans and is_elsewhere(error)
        for run in call.runs:
            run.queue.flying -= 1
            if elsewhere:
                self._repeat(run, self._loop.time(), f"slot {slot_of(run.queue.channel)}: {error}")
            elif error is not None:
                self._fail_run(run, error)
            elif run.late:
                self._repeat(run, max(run.due, self._loop.time()), "")
            elif run.strangers is not None:
                self._hold(run, run.strangers)
                strangers = {**(strangers or {}), **run.strangers}
            else:
                self._pending.forget(run.operations)
        if strangers:
            held = [run.queue for run in call.runs if run.strangers is not None]
            self._lookups.begin(strangers, dict.fromkeys(held), call.reading)
        if elsewhere:
            self._topology.look_again()
            self._pauses.begin(dict.fromkeys(run.queue for run in call.runs))
        for run in call.runs:
            if not run.queue.flying:
                self._make_ready(run.queue)
        if call.lane.ready:
            self._schedule(call.lane)

    def _read_reply(self, call: Call, reply: asyncio.Future[Any]) -> BaseException | None:
        """Answer operations by a reply; returns the error for all that have no answer yet."""
        error = call.lane.unanswered() if reply.cancelled() else reply.exception()
        if error is not None:
            return refused_by(error) if isinstance(error, ResponseError) else error
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

    def _repeat(self, run: Run, past: float, why: str) -> None:
        """A run was not executed: send its operations with time left after ``past`` again."""
        run.queue.why = why
        for operation in run.operations:
            if operation.deadline <= past or operation.future.done():
                fail(operation, late(why))
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
            queue.lane.ready[queue.channel] = queue
        if not self._open:
            self._fail_waiting(queue)
        self._retire(queue)

    def _retire(self, queue: NamespaceQueue) -> None:
        """Forget a queue with nothing that waits, is in flight, or will be heard back."""
        if not (queue.waiting or queue.flying):
            queue.lane.ready.pop(queue.channel, None)
            if queue.barrier is NOWHERE and queue.own_barrier is NOWHERE:
                self._queues.pop(queue.channel, None)

    def _go_on(self, queues: Collection[NamespaceQueue]) -> None:
        """The lookups or pauses of these queues have ended."""
        for queue in queues:
            if not queue.flying:
                self._make_ready(queue)
                if queue.waiting:
                    self._schedule(queue.lane)

    # -- waiting ---------------------------------------------------------------------------

    def _drop_done(self, queue: NamespaceQueue) -> None:
        """Drop operations at the head that were answered or cancelled while they waited."""
        while queue.waiting and queue.waiting[0].future.done():
            self._drop_first(queue)

    def _drop_cancelled(self) -> None:
        """Drop all operations that were answered or cancelled while they waited; in a tenth of the
        time at most, since a caller that goes on at the limit would cause it at each call."""
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
        self._pending.forget([operation := queue.waiting.popleft()])
        return operation

    def _expire(self, now: float) -> float:
        """Fail all operations past their deadline; returns the soonest deadline of the others."""
        soonest = self._lanes.fail_late(now)
        for queue in self._busy():
            error = unreached(queue.lane, queue.why)
            for operations in (queue.again, queue.waiting):
                soonest = min(soonest, fail_late(operations, now, error))
            self._drop_done(queue)
            self._retire(queue)
        return soonest

    def _busy(self) -> list[NamespaceQueue]:
        """The queues with operations that wait, are in flight or looked up: a few of all."""
        busy = [*self._lanes.queues(), *self._lookups.queues, *self._pauses.queues]
        return list(dict.fromkeys(busy))
