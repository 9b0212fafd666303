"""Writes a batch as one script call, and reads its reply for each operation.

The script executes the runs of a batch in order, so messages of one namespace never overtake each
other, even when an owner is not known; see :mod:`.lease_view`. Nothing waits here.
"""

import asyncio
from collections.abc import Iterator
from time import monotonic
from typing import Any, Final

from redis.exceptions import ResponseError

from cluster_pool.backplane import script_calls, script_words
from cluster_pool.backplane.batching import SEND, Operation, Run
from cluster_pool.backplane.command_connection import Argument, CommandConnection, ScriptCall
from cluster_pool.backplane.lanes import Call
from cluster_pool.backplane.lease_view import LeaseView
from cluster_pool.backplane.pending import fail
from cluster_pool.backplane.refusals import refusal
from cluster_pool.backplane.script_calls import Envelope, SendRun
from cluster_pool.backplane.script_words import CLAIMS, LEASES
from cluster_pool.backplane.shard import Shard
from cluster_pool.backplane.slots import slot_of
from cluster_pool.backplane.succession import UNSURE
from cluster_pool.core.envelope import unrouted
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.core.progress import Mark
from cluster_pool.core.results import SendResult
from cluster_pool.core.seals import BOUND, ROUTED, Seals, own_scope
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import BackplaneUnavailableError

_ROUTED: Final = ord(script_words.ROUTED)
_UNREACHABLE: Final = ord(script_words.UNREACHABLE)
_PARKED: Final = ord(script_words.PARKED)
RESULTS: Final = {
    _ROUTED: SendResult.ROUTED,
    _UNREACHABLE: SendResult.UNREACHABLE,
    _PARKED: SendResult.PARKED,
}
_ABSENT: Final = ord(script_words.ABSENT)
_GONE_ITEM: Final = ord(script_words.GONE_ITEM)
_LATE_ITEM: Final = ord(script_words.LATE_ITEM)
_HELD_ITEM: Final = ord(script_words.HELD_ITEM)
_UNKNOWN: Final = ord(script_words.UNKNOWN)
_LATE: Final = script_words.LATE.encode()
_HELD: Final = script_words.HELD.encode()


class BatchCalls:
    """Writes batches for one node or publisher, and reads their replies.

    Args:
        home: the shard that has the leases.
    """

    def __init__(
        self,
        home: Shard,
        keys: Keys,
        identity: Identity,
        view: LeaseView,
        counters: Counters,
        seals: Seals | None,
    ) -> None:
        self._home = home
        self._keys = keys
        self._identity = identity
        self._view = view
        self._counters = counters
        self._seals = seals

    def write(self, commands: CommandConnection, call: Call, now: float) -> asyncio.Future[Any]:
        """Queue a batch; the future gives the reply that :meth:`answer` reads."""
        shard, call.written = call.lane.shard, monotonic()
        if not call.routed:
            envelopes = [self._envelope(run, shard) for run in call.runs]
            return commands.script(
                script_calls.publish(
                    self._keys,
                    sender=shard.sender,
                    counted_by=shard.succession.digits,
                    envelopes=envelopes,
                )
            )
        leases = commands if shard is self._home else self._home.commands
        if leases is not None:
            self._view.refresh_if_old(leases, now)
        call.reading = self._view.readings
        return commands.script(self._send(call.runs, shard, now))

    def _send(self, runs: list[Run], shard: Shard, now: float) -> ScriptCall:
        ended, view_ends = self._view.for_script(now)
        if shard is not self._home:
            view_ends = shard.clock.at(self._view.ends_at) // 1000
        return script_calls.send(
            self._keys,
            sender=shard.sender,
            counted_by=shard.succession.digits,
            start_prefix=runs[0].queue.routed,
            own_start=self._identity.start,
            ended=ended,
            view_ends=view_ends,
            doubted=self._doubted(shard, now),
            runs=[
                self._send_run(run, shard) if run.kind == SEND else self._envelope(run, shard)
                for run in runs
            ],
        )

    def _doubted(self, shard: Shard, now: float) -> str:
        """The things whose lack says nothing at the moment: an item without them waits."""
        claims = CLAIMS if now < shard.succession.patient_until else ""
        return claims + (LEASES if now < self._home.succession.patient_until else "")

    def _send_run(self, run: Run, shard: Shard) -> SendRun:
        fields: list[Argument] = []
        for operation, item in zip(run.operations, self._sealed(ROUTED, run, shard), strict=True):
            fields += (operation.id, item)
        kept = run.operations[0].kept
        numbers = self._keys.numbers(run.queue.channel)
        return SendRun(run.queue.members, numbers, shard.clock.at(run.due), kept, fields)

    def _envelope(self, run: Run, shard: Shard) -> Envelope:
        queue, due = run.queue, shard.clock.at(run.due)
        items = self._sealed(BOUND, run, shard)
        messages = len(items) if queue.members else 0
        joined = b"".join(items if messages else map(unrouted, items))
        return Envelope(queue.channel, queue.members, due, messages, joined)

    def _sealed(self, kind: int, run: Run, shard: Shard) -> list[bytes]:
        """The items of a run; with a secret they are sealed, in the order of publishing."""
        if self._seals is None:
            return [operation.item for operation in run.operations]
        seal, start = self._seals.seal, self._identity.start
        now = shard.redis_time_at_most()
        scope = self._keys.node_prefix if kind == ROUTED else run.queue.channel
        if run.queue.members:
            return [seal(kind, scope, start, one.item, now) for one in run.operations]
        return [
            seal(kind, own_scope(scope, one.id), start, one.item, now) for one in run.operations
        ]

    # -- replies ---------------------------------------------------------------------------

    def answer(self, call: Call, reply: list[Any]) -> None:
        """Answer the operations that were executed or failed; mark runs that have others."""
        self._counters.redis_seconds.observe(monotonic() - call.written)
        shard = call.lane.shard
        if call.routed:
            self._routed(shard, call.runs, *reply)
        else:
            for run, mark, heard in zip(call.runs, reply[::2], reply[1::2], strict=True):
                self._published(shard, run, mark, heard)

    def _routed(
        self,
        shard: Shard,
        runs: list[Run],
        codes: bytes,
        own_mark: bytes,
        refused: bytes,
        unknown: list[bytes],
        heard_of: list[Any],
        unheard: list[bytes],
    ) -> None:
        leases = self._home.commands
        if unheard and leases is not None:
            self._view.doubt(leases, unheard)
        strangers, envelopes = iter(unknown), iter(heard_of)
        at = 0
        for run in runs:
            if run.kind != SEND:
                self._published(shard, run, next(envelopes), next(envelopes))
                continue
            until = at + len(run.operations)
            part = codes[at:until]
            at = until
            if own_mark and shard.listens(run.queue.channel):
                run.queue.own_barrier = Mark.parse(own_mark)
            run.late = part[0] == _LATE_ITEM
            if not run.late:
                self._sent(shard, run, part, refused, strangers)

    def _sent(
        self, shard: Shard, run: Run, codes: bytes, refused: bytes, strangers: Iterator[bytes]
    ) -> None:
        held: dict[Operation, bytes] = {}
        for operation, code in zip(run.operations, codes, strict=True):
            result = RESULTS.get(code)
            if result is not None:
                if not operation.future.done():
                    operation.future.set_result(result)
            elif code == _UNKNOWN:
                held[operation] = next(strangers)
            elif code == _HELD_ITEM:
                held[operation] = b""
            elif code == _ABSENT:
                self._absent(operation, shard)
            elif code == _GONE_ITEM:
                self._absent(operation, self._home)
            else:
                fail(operation, refused_by(refused))
        run.strangers = held or None
        run.queue.why = ""
        if held:
            slot = slot_of(run.queue.channel)
            run.queue.why = f"slot {slot}: {refusal(refused)}" if refused else UNSURE
        self._counters.published += len(run.operations) - len(held)
        self._counters.sends_routed += codes.count(_ROUTED)
        self._counters.sends_unreachable += codes.count(_UNREACHABLE)
        self._counters.sends_parked += codes.count(_PARKED)

    def _absent(self, operation: Operation, shard: Shard) -> None:
        """Answer that there is no such member, unless ``shard`` may have lost it."""
        if operation.future.get_loop().time() < shard.succession.unsure_until:
            fail(operation, BackplaneUnavailableError(UNSURE))
        elif not operation.future.done():
            self._counters.sends_absent += 1
            operation.future.set_result(SendResult.ABSENT)

    def _published(self, shard: Shard, run: Run, mark: bytes, heard: Any) -> None:
        run.late = mark == _LATE
        if run.late:
            return
        if mark == _HELD:
            run.strangers = dict.fromkeys(run.operations, b"")
            return
        if not mark:
            for operation in run.operations:
                fail(operation, refused_by(heard))
            return
        run.queue.why = ""
        if shard.listens(run.queue.channel):
            run.queue.barrier = Mark.parse(mark)
        for operation in run.operations:
            if not operation.future.done():
                operation.future.set_result(heard)
        self._counters.published += len(run.operations)
        if run.queue.members:
            self._counters.broadcasts += len(run.operations)


def refused_by(why: bytes | ResponseError) -> BackplaneUnavailableError:
    """The error for an operation that Redis refused."""
    error = BackplaneUnavailableError(refusal(why))
    error.__cause__ = why if isinstance(why, ResponseError) else None
    return error
