"""The leases as this process knows them: which of the owners that claims name may be dead.

A claim names an incarnation, and with it the start of its owner. A start listens to a channel of
its own, so the script that routes needs to know nothing of owners that live. But an owner may be
dead and listen all the same: a frozen process, or a machine without power, whose connection Redis
still has. Leases have another hash tag than claims, so the script cannot read them. Each call
carries the incarnations whose lease may be over, which are none nearly always.

**The view can be trusted until its soonest end.** The end of a lease is known, since only its node
can extend it. An incarnation that has joined since the last reading has a lease of three heartbeats
at least. So the view is right as long as no end in it has passed, and it is no older than that. Its
end goes with the call, and the script, which has the time of Redis, takes every owner for one whose
lease may be over when that has passed.

**An owner whose lease may be over is looked up.** The script does not execute its items. The sender
reads all leases and what has become of that one, and the item is sent again: the owner may live, or
the node may have registered the claim under another incarnation meanwhile. If the lease is over and
it is not buried yet, the view notes that for a moment, and the answer is UNREACHABLE. If it is
gone, the view notes that: an incarnation that is gone never comes back, and its members are absent.
In place of both the answer is PARKED, where a history keeps the item.

**An owner that does not listen is UNREACHABLE.** If the view does not have it, it is either new, or
it has left claims that no reaping knows of, since keys were lost. Then it is looked up, and sends
that follow are answered ABSENT if it is gone.

**A lease may be given up before its end.** Other views have it until their next reading, a
heartbeat (3 s) later at most. There are two cases:

- A node gives up its own lease. It has released its claims before, or asserted them under another
  incarnation, so no send meets the old one.
- A successor with the node id of a silent predecessor ends the predecessor's lease and joins. The
  claims of the predecessor stay until they are reaped. It was silent, so nobody listens to its
  channel, and the answer is UNREACHABLE until the next reading.

**Order.** The items of one namespace in one call are executed in order. Behind an item that waits
for a lookup, no later run of the namespace is executed in that call: its items come back together
with that item to the head of the queue, and the queue sends nothing until the lookup has ended.
Other items of the same run are executed: no order is promised between two ids, and the items of one
id have the same claim in one call, so all of them are executed or none. Other namespaces are not
affected.

**Refreshing.** A node's joins and heartbeats read the view. A sender that finds it older than a
heartbeat queues a reading in front of the send, without waiting; if the send meets an owner that it
must look up it is sent again at once. So a publisher reads the view only while it is in use.

**The cost of a reading.** It is the plain list of names and ends, which costs Redis 0.12 µs for
each of them; each node of a cluster reads it with each heartbeat. The names of those that are being
reaped come with it, none mostly.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf
from typing import Any, Final

from cluster_pool.backplane import script_calls
from cluster_pool.backplane.calls import unheeded
from cluster_pool.backplane.command_connection import CommandConnection
from cluster_pool.backplane.script_words import GONE, OVER
from cluster_pool.core.clock import RedisClock
from cluster_pool.core.keys import Keys

SHORTEST: Final = 3
"""Heartbeats that a lease lasts at least: :class:`.Timing` has no shorter one."""
GONE_FOR: Final = 60.0
"""Seconds for which a view remembers an incarnation that it has looked up in vain; claims that no
reaping knows of may still name it."""
OVER_FOR: Final = 0.2
"""The same for one whose lease was over: the item is sent again at once, and it may be buried."""
MOST_GONE: Final = 1_000
"""How many of these it remembers."""

Answer = Callable[[BaseException | None], None]
"""Called when a lookup has ended, with its error."""


class LeaseView:
    """The incarnations with the ends of their leases, and those that are being reaped.

    Args:
        clock: of the Redis that has the leases.
        refresh_after: seconds after which a reading is old: a heartbeat.
    """

    def __init__(self, keys: Keys, clock: RedisClock, refresh_after: float) -> None:
        self._keys = keys
        self._clock = clock
        self._refresh_after = refresh_after
        self._loop = asyncio.get_running_loop()
        self._leases: dict[bytes, float] = {}
        """When each lease ends, in ms of Redis; 0 if it was over when it was read."""
        self._reaped: frozenset[bytes] = frozenset()
        """Those that are being reaped."""
        self._gone: dict[bytes, float] = {}
        """Those that were looked up in vain, and until when that is remembered."""
        self._over: dict[bytes, float] = {}
        """The same of those whose lease was over, and that were not buried yet."""
        self.living = 0
        """The number of nodes that the last reading has; one with two incarnations counts once."""
        self._lines = b""
        self._limit = self._ends = 0
        self._written_until = inf
        """When the lines change unless the leases are read again, on the clock of the loop."""
        self._due = -inf
        self.ends_at = 0.0
        """When it ends on the clock of the loop, or a little before that: for scripts at other
        primaries, whose clocks are others."""
        self.readings = 0
        """The number of readings so far."""

    def clear(self) -> None:
        """Forget everything: another Redis may answer now."""
        self._leases.clear()
        self._gone.clear()
        self._over.clear()
        self._reaped = frozenset()
        self._lines = b""
        self._limit = self._ends = 0
        self._written_until, self._due, self.ends_at = inf, -inf, 0.0

    def knows(self, incarnations: Iterable[bytes], since: int) -> bool:
        """Whether there was a reading after ``since``, and none of these needs to be looked up.

        A lookup's reading is judged by the time of Redis. So whatever the clock of this process
        says, a send is not repeated for ever.
        """
        now = self._clock.at(self._loop.time()) // 1000
        return self.readings > since and all(
            self._leases.get(name, inf) > now or self._is_known_dead(name) for name in incarnations
        )

    def _is_known_dead(self, name: bytes) -> bool:
        return name in self._gone or name in self._over or name in self._reaped

    def lives(self, incarnation: bytes) -> bool:
        """Whether an incarnation had a lease by the last reading."""
        return incarnation in self._leases

    def for_script(self, now: float) -> tuple[bytes, int]:
        """The incarnations whose lease is or may be over, as the sending script reads them, and the
        Redis time in ms at which the view ends.

        Args:
            now: on the clock of the loop.
        """
        if now >= self._written_until:
            self._write()
        return self._lines, self._ends

    def read(self, leases: Sequence[bytes], reaped: Iterable[bytes], now: int) -> None:
        """Replace the view by a reading.

        Args:
            leases: the name of each incarnation and the end of its lease.
            reaped: those that are being reaped.
            now: the Redis time of the reading in ms, or a little earlier.
        """
        ends = [end if end > now else 0.0 for end in map(float, leases[1::2])]
        self._leases = known = dict(zip(leases[::2], ends, strict=True))
        self.living = len({name.partition(b".")[0] for name, end in known.items() if end})
        self._reaped = frozenset(name for name in reaped if not known.get(name))
        moment = self._loop.time()
        self._gone = {
            name: until
            for name, until in self._gone.items()
            if until > moment and not known.get(name)
        }
        self._limit = now + int(SHORTEST * self._refresh_after * 1000)
        self._due = moment + self._refresh_after
        self.readings += 1
        self._write()

    def refresh_if_old(self, commands: CommandConnection, now: float) -> None:
        """Queue a new reading ahead of the next command, unless the last one is recent."""
        if now >= self._due:
            self._due = now + self._refresh_after
            self.refresh(commands).add_done_callback(unheeded)

    def refresh(self, commands: CommandConnection) -> asyncio.Future[None]:
        """Queue a new reading; when the future is done, the view has it, or it failed.

        Those that are being reaped are read behind the leases, so that one that is buried between
        the two is in both.
        """
        both: asyncio.Future[None] = self._loop.create_future()
        now = self._clock.at(self._loop.time()) // 1000
        leases = commands.call("ZRANGE", self._keys.leases, 0, -1, "WITHSCORES")
        leases.add_done_callback(unheeded)
        reaped = commands.call("HKEYS", self._keys.dead)
        reaped.add_done_callback(partial(self._read_both, both, leases, now))
        return both

    def _read_both(
        self,
        both: asyncio.Future[None],
        leases: asyncio.Future[Any],
        now: int,
        reaped: asyncio.Future[Any],
    ) -> None:
        """Both replies are there. If those that are being reaped cannot be read, the ones that are
        known stay: a key of a wrong type is deleted by the next script that needs it."""
        unread = reaped.cancelled() or reaped.exception() is not None
        try:
            self.read(leases.result(), self._reaped if unread else reaped.result(), now)
        except (asyncio.CancelledError, Exception) as error:
            if not both.done():
                both.set_exception(error)
        else:
            if not both.done():
                both.set_result(None)

    def look_up(
        self, commands: CommandConnection, incarnations: Sequence[bytes], answer: Answer
    ) -> asyncio.Future[Any]:
        """Queue a new reading that also asks what has become of ``incarnations``."""

        def read(call: asyncio.Future[Any]) -> None:
            error = asyncio.CancelledError() if call.cancelled() else call.exception()
            if error is None:
                try:
                    self._learn(incarnations, *call.result())
                except Exception as wrong:
                    error = wrong
            answer(error)

        call = commands.script(script_calls.living(self._keys, asked=incarnations))
        call.add_done_callback(read)
        return call

    def doubt(self, commands: CommandConnection, incarnations: Iterable[bytes]) -> None:
        """Look up owners that do not listen and that the view does not have, for later sends."""
        unknown = [name for name in dict.fromkeys(incarnations) if not self.lives(name)]
        if unknown:
            self.look_up(commands, unknown, _ignore)

    def _learn(
        self, asked: Sequence[bytes], reading: Sequence[Any], states: Sequence[bytes]
    ) -> None:
        now = self._loop.time()
        for name, state in zip(asked, states, strict=True):
            self._gone.pop(name, None)
            self._over.pop(name, None)
            if state == _GONE:
                self._gone[name] = now + GONE_FOR
            elif state == _OVER:
                self._over[name] = now + OVER_FOR
        for found in (self._gone, self._over):
            while len(found) > MOST_GONE:
                del found[next(iter(found))]
        self.read(*reading)

    def _write(self) -> None:
        """Write the lines: what is gone, and leases that are over by our estimate of Redis time.

        The estimate is never ahead; the script checks the end by the real time.
        """
        moment = self._loop.time()
        now = self._clock.at(moment) // 1000
        self._over = {name: until for name, until in self._over.items() if until > moment}
        gone = self._reaped.union(self._gone)
        over = [name for name, end in self._leases.items() if end <= now and name not in gone]
        lines = [name + b" " for name in sorted(gone)]
        lines += [name + (b" !" if name in self._over else b" ?") for name in over]
        self._lines = b"\n".join([b"", *lines, b""]) if lines else b""
        self._ends = int(min([self._limit, *(end for end in self._leases.values() if end > now)]))
        ends = moment + (self._ends - now) / 1000 if self._ends > now else inf
        self._written_until = min([ends, *self._over.values()])
        self.ends_at = moment + self._ends / 1000 - self._clock.not_before(moment) / 1_000_000


_GONE: Final = GONE.encode()
_OVER: Final = OVER.encode()


def _ignore(error: BaseException | None) -> None:
    """No send waits for this reading; the next send uses it."""
