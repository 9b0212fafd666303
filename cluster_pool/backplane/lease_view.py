"""Which incarnations live, as this process knows it: what a targeted send needs to reach an owner.

A claim names an incarnation; the channel of its owner is that of the incarnation's node. Leases and
nodes stand under another hash tag than claims, so the script that routes does not read them: it is
given this view with the call, one line for each incarnation.

**What the view says holds.** An incarnation has one node for ever, and while its lease has not
ended it may be sent to; how its lease ends is known beforehand, since nobody but its node can make
it longer. So the view says nothing wrong as long as no end in it is past. Its soonest end goes with
the call, and the script, which has the time of Redis, takes nothing from a view that is past it. A
lease that is given up before its end is believed in until the next reading, a heartbeat later at
most: its node has released its claims before, or asserted them under another incarnation.

**What it does not say is looked up.** An item whose owner is not in the view is not carried out.
The sender reads which incarnations live and what has become of that one, and then: sends again,
when it lives; answers UNREACHABLE, when its lease is over and it is not buried yet; and when it is
gone says so in the view and sends again, since whoever held that claim may have registered it anew
under another incarnation meanwhile. An incarnation that is gone never comes back. Hence nothing is
called absent or unreachable for what was read earlier than the claim.

**Order.** What one namespace sends in one call is carried out in order. Behind an item whose owner
is not known, no later run of the namespace is carried out in that call, whatever it is: those items
come back with it, are at the head of the queue together, and the queue sends nothing until the
lookup is over. In the same run, other items go: no order is promised between two ids, and those of
one id have the same claim in one call, so all of them are carried out or none. Other namespaces are
not concerned.

**Who keeps it fresh.** A node's joins and heartbeats read it. Whoever sends and finds it older than
a heartbeat reads it in front of the send, without waiting; the send is then sent again at once if
it met a stranger. So a publisher reads only while it is in use.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final

from cluster_pool.backplane import script_calls
from cluster_pool.backplane.command_connection import CommandConnection
from cluster_pool.backplane.script_words import GONE, OVER
from cluster_pool.core.clock import RedisClock
from cluster_pool.core.keys import Keys

NEVER: Final = float("-inf")
MOST_GONE: Final = 1_000
"""Incarnations that are gone which are remembered: those that claims still name, in a view."""

Answer = Callable[[Collection[bytes], BaseException | None], None]
"""Takes the incarnations whose lease is over, or why that is not known."""


class LeaseView:
    """The living incarnations with their nodes and the ends of their leases.

    Args:
        clock: of the Redis that has the leases.
        refresh_after: seconds after which a reading is old.
    """

    def __init__(self, keys: Keys, clock: RedisClock, refresh_after: float) -> None:
        self._keys = keys
        self._clock = clock
        self._refresh_after = refresh_after
        self._loop = asyncio.get_running_loop()
        self._living: dict[bytes, tuple[bytes, int]] = {}
        self._gone: dict[bytes, None] = {}
        self._lines = b""
        self._ends = 0
        self._written_until = NEVER
        """When its soonest lease ends on the clock of the loop, as far as that is known."""
        self._due = NEVER
        self.readings = 0
        """How often it was read."""

    def clear(self) -> None:
        """Another Redis may answer now: nothing is known."""
        self._living.clear()
        self._gone.clear()
        self._written_until = self._due = NEVER

    def knows(self, incarnations: Iterable[bytes], since: int) -> bool:
        """Whether there was a reading after ``since``, and the view has all of these.

        A view that was read again has none that was over then, whatever the clock of this process
        says of it; so a send is not repeated for ever.
        """
        known = self._living.keys() | self._gone.keys()
        return self.readings > since and known >= set(incarnations)

    def for_script(self, now: float) -> tuple[bytes, int]:
        """The view as the sending script takes it, and the Redis time in ms at which it ends.

        Args:
            now: on the clock of the loop.
        """
        if now >= self._written_until:
            self._write()
        return self._lines, self._ends

    def read(self, living: Sequence[bytes]) -> None:
        """Take what a script says of all that live: incarnation, end and node of each."""
        self._living = {
            name: (node, int(float(ends)))
            for name, ends, node in zip(living[::3], living[1::3], living[2::3], strict=True)
            if node and b"\n" not in node
        }
        for name in self._gone.keys() & self._living.keys():
            del self._gone[name]
        self._due = self._loop.time() + self._refresh_after
        self.readings += 1
        self._write()

    def refresh_if_old(self, commands: CommandConnection, now: float) -> None:
        """Read it anew in front of what is written next, unless it was lately."""
        if now >= self._due:
            self._due = now + self._refresh_after
            self.look_up(commands, (), _ignore)

    def look_up(
        self, commands: CommandConnection, incarnations: Sequence[bytes], answer: Answer
    ) -> None:
        """Read it anew, and find out what has become of some."""

        def read(call: asyncio.Future[Any]) -> None:
            error = asyncio.CancelledError() if call.cancelled() else call.exception()
            over: set[bytes] = set()
            if error is None:
                try:
                    over = self._learn(incarnations, *call.result())
                except Exception as wrong:
                    error = wrong
            answer(over, error)

        call = commands.script(script_calls.living(self._keys, asked=incarnations))
        call.add_done_callback(read)

    def _learn(
        self, asked: Sequence[bytes], living: Sequence[bytes], states: Sequence[bytes]
    ) -> set[bytes]:
        gone = [name for name, state in zip(asked, states, strict=True) if state == _GONE]
        self._gone.update(dict.fromkeys(gone))
        while len(self._gone) > MOST_GONE:
            del self._gone[next(iter(self._gone))]
        self.read(living)
        return {name for name, state in zip(asked, states, strict=True) if state == _OVER}

    def _write(self) -> None:
        """Leave out whose lease is over by Redis time, or a little less: the script judges by its
        own."""
        moment = self._loop.time()
        now = self._clock.at(moment) // 1000
        lives = {name: one for name, one in self._living.items() if one[1] > now}
        lines = [name + b" " + node for name, (node, _) in lives.items()]
        lines += [name + b" " for name in self._gone]
        self._lines = b"\n".join([b"", *lines, b""])
        self._ends = min((ends for _, ends in lives.values()), default=now + 1_000)
        self._written_until = moment + (self._ends - now) / 1000


_GONE: Final = GONE.encode()
_OVER: Final = OVER.encode()


def _ignore(over: Collection[bytes], error: BaseException | None) -> None:
    """Nothing waits for this reading; the next send will have the next one."""
