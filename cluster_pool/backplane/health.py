"""Health of a Redis: the probe, its kind, its time, and the epoch of its state.

An error that is raised here ends the generation. Makes no generation, and knows no channel but the
one that it is told to probe.
"""

import asyncio
import logging
from collections.abc import Awaitable
from time import monotonic
from typing import Final, TypeVar

from redis.exceptions import ResponseError

from cluster_pool.backplane import script_calls
from cluster_pool.backplane.calls import deadline_in, unheeded
from cluster_pool.backplane.channel_commands import PLAIN, ChannelCommands
from cluster_pool.backplane.command_connection import CommandConnection
from cluster_pool.backplane.generation import Generations
from cluster_pool.backplane.inbox import probe_heard
from cluster_pool.backplane.refusals import (
    is_half_moved,
    is_unknown,
    misplaced,
    needs_another,
    refusal,
)
from cluster_pool.backplane.script_calls import Envelope
from cluster_pool.backplane.scripts import digest
from cluster_pool.backplane.shard_context import ShardContext
from cluster_pool.core.clock import RedisClock
from cluster_pool.core.envelope import empty_envelope
from cluster_pool.exceptions import BackplaneUnavailableError

log = logging.getLogger("cluster_pool.backplane")

T = TypeVar("T")

PROBES_LOST: Final = 3
"""Probes without an answer that end a generation."""
NEWEST: Final = "ZMSCORE"
"""The newest command that a node sends to a server; Redis has it since 6.2."""
STALL: Final = 0.5
"""Seconds that the event loop must have stood still for a line in the log."""


class Health:
    """The health of one Redis primary, as one start sees it.

    Args:
        probed: set when a probe of this start was heard.
        channels: the commands of pub/sub; sharded where it must be a node of a cluster.
        home: whether its probe has one slot for ever.
    """

    def __init__(
        self,
        context: ShardContext,
        generations: Generations,
        probed: asyncio.Event,
        channels: ChannelCommands = PLAIN,
        *,
        home: bool = True,
    ) -> None:
        self.clock = RedisClock()
        self.epoch = ""
        """The epoch of the state of Redis, as last read; "" before the first reading."""
        self._keys = context.keys
        self._generations = generations
        self._outage = generations.outage
        self._probed = probed
        self._timing = context.timing
        self._counters = context.counters
        self._holds = context.holds
        """Whether this process holds connections, and must notice a restored Redis."""
        self._inbox = context.inbox
        self._channels = channels
        self._home = home

    # -- time ------------------------------------------------------------------------------

    def redis_time(self) -> int:
        """The time of Redis in µs, as far as this process knows; never ahead of it."""
        return self.clock.at(asyncio.get_running_loop().time())

    def redis_time_at_most(self) -> int:
        """The time of Redis in µs, or a little more; never behind it."""
        return self.clock.not_before(asyncio.get_running_loop().time())

    async def hear_time(self, commands: CommandConnection) -> None:
        """Ask Redis for its time."""
        loop = asyncio.get_running_loop()
        asked, began = loop.time(), monotonic()
        seconds, micros = await self.soon(commands.call("TIME"))
        self._counters.redis_seconds.observe(monotonic() - began)
        self.clock.hear(int(seconds) * 1_000_000 + int(micros), asked, loop.time())

    # -- probes ----------------------------------------------------------------------------

    async def soon(self, answer: Awaitable[T], silence: str = "Redis said nothing") -> T:
        """Wait for an answer; raise, which ends the generation, after three probes without one.

        The probes are waited for one by one: after a stall of the event loop, what has arrived is
        read before the next wait, so that our own stall does not look like a silent Redis.
        """
        waiting = asyncio.ensure_future(answer)
        up = self._generations.current is not None
        probes = PROBES_LOST - up  # the pause before a probe was the first
        try:
            for _ in range(probes):
                await asyncio.wait((waiting,), timeout=self._timing.probe)
                if waiting.done():
                    return waiting.result()
        except ResponseError as error:
            raise BackplaneUnavailableError(refusal(error)) from error
        finally:
            waiting.cancel()
        raise BackplaneUnavailableError(f"{silence} for {PROBES_LOST * self._timing.probe:g} s")

    async def rest(self) -> None:
        """Wait until the next probe is due; log it when the event loop stood still meanwhile."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._timing.probe
        await asyncio.sleep(self._timing.probe)
        late = loop.time() - due
        if self._home:
            self._counters.loop_lag_seconds.observe(max(0.0, late))
        if late >= STALL:
            self._counters.stalls += 1
            log.warning("the event loop stood still for %.1f s: does something block it?", late)

    async def probe(self, commands: CommandConnection, channel: str) -> None:
        """Publish to this start's own channel, by a write, and wait until that is heard.

        A replica refuses the write. In a slot that is half-way to another primary nothing can be
        written; there a probe without a write tells whether the subscriber works.
        """
        not_after = self.clock.at(deadline_in(self._timing.timeout))
        began = monotonic()
        self._probed.clear()
        envelope = Envelope(channel, "", not_after, 0, b"")
        sender = self._generations.sender
        call = script_calls.publish(self._keys, sender=sender, counted_by="", envelopes=[envelope])
        try:
            mark, said = await self.soon(commands.script(call))
        except BackplaneUnavailableError as error:
            if not (self._home and is_half_moved(error)):
                raise
            mark, said = (
                b"0 0",
                await self.soon(
                    commands.call(self._channels.publish, channel, empty_envelope(sender))
                ),
            )
        if mark == b"LATE":
            raise BackplaneUnavailableError("Redis is behind its own time")
        refused = "" if mark else refusal(said)
        if needs_another(refused):
            raise BackplaneUnavailableError(refused)
        try:
            silence = "deaf: this node has not heard its own probe"
            await self.soon(self._probed.wait(), silence)
        except BackplaneUnavailableError as error:
            raise BackplaneUnavailableError(refused or str(error)) from error
        if self._home and self._holds and self._generations.current is not None:
            self._inbox.put(probe_heard(began))
        if refused:  # the subscriber still works, for messages by a plain PUBLISH
            self._outage.fail("probe", refused, self._timing.probe)
        else:
            self._outage.recover("probe")

    # -- kind and state --------------------------------------------------------------------

    async def check_kind(self, commands: CommandConnection) -> None:
        """Raise for a Redis that no node can use, and say what it is.

        A cluster of one primary would execute half of the commands and refuse the others. A server
        with the newest command that is needed has all of them.
        """
        newest = commands.call(NEWEST, self._keys.leases, "")
        newest.add_done_callback(unheeded)
        try:
            said = await self._hello(commands)
        except ResponseError:  # not allowed, or not known: later errors will show what it is
            said = {}
        why = misplaced(said.get(b"mode", b"").decode(), clustered=self._channels.sharded)
        if why:
            raise BackplaneUnavailableError(f"Redis at {self._outage.where}: {why}")
        await self.soon(asyncio.wait((newest,)))
        missing = newest.exception()
        if missing is not None and is_unknown(missing):
            raise BackplaneUnavailableError(refusal(missing)) from missing

    async def _hello(self, commands: CommandConnection) -> dict[bytes, bytes]:
        """The reply of HELLO, as far as its values are strings."""
        call = commands.call("HELLO")
        await self.soon(asyncio.wait((call,)))
        flat = call.result()
        fields = zip(flat[::2], flat[1::2], strict=False) if isinstance(flat, list) else ()
        return {name: value for name, value in fields if isinstance(value, bytes)}

    async def state_lost(self, commands: CommandConnection) -> bool:
        """Whether this Redis may have lost its state since this process was last connected.

        Then it has another epoch. A Redis that was restored from a snapshot has the old epoch, but
        knows no script: the first node to notice renews the epoch, so that all nodes see it.
        """
        epoch = await self.soon(self._read_epoch(commands))
        if epoch and self._holds:
            exists = commands.call("SCRIPT", "EXISTS", digest(_mark(epoch)))
            if not (await self.soon(exists))[0]:
                epoch = await self._renew(commands, epoch)
        before, self.epoch = self.epoch, epoch
        return before != "" and before != epoch

    async def _read_epoch(self, commands: CommandConnection) -> str:
        """The epoch; "" when there is none, or none that a node can have written."""
        try:
            found = await commands.call("GET", self._keys.epoch) or b""
        except ResponseError:  # of a wrong type: the next join deletes it
            return ""
        return found.decode() if found.isdigit() else ""

    async def _renew(self, commands: CommandConnection, epoch: str) -> str:
        new = str(self.redis_time())
        await self.soon(commands.call("SCRIPT", "LOAD", _mark(new)))
        renewal = script_calls.renew_epoch(self._keys, old=epoch, new=new)
        standing: bytes = await self.soon(commands.script(renewal))
        return standing.decode()

    async def propose_epoch(self, deadline: float) -> str:
        """An epoch for a Redis that has none, marked before any node sees it; "" if it has one.

        A node that saw a new epoch without its mark would think that Redis was restored.
        """
        if self.epoch:
            return ""
        proposed = str(self.redis_time())
        await self._generations.call(deadline, "SCRIPT", "LOAD", _mark(proposed))
        return proposed

    async def mark(self, epoch: str, deadline: float) -> None:
        """Mark this Redis process, which has this epoch, by a script that no restart survives."""
        await self._generations.call(deadline, "SCRIPT", "LOAD", _mark(epoch))
        self.epoch = epoch


def _mark(epoch: str) -> str:
    """A script that does nothing; only the Redis process that has loaded it knows it."""
    return f"return '{epoch}'"
