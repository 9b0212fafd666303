"""Timers for the pings of many WebSockets: those whose pings are due together share one.

A timer of its own takes half a kilobyte of each connection.
"""

import asyncio
from math import ceil
from typing import Any, ClassVar, Final, Protocol
from weakref import WeakKeyDictionary

PINGS_PER_INTERVAL: Final = 16
"""Rounds of pings in an interval."""


class Pinging(Protocol):
    """A WebSocket that sends pings."""

    loop: asyncio.AbstractEventLoop

    def send_keepalive_ping(self) -> None:
        """Send one now."""


class Round(set[Pinging]):
    """The WebSockets whose pings are due at one time; to uvicorn it is the timer of each."""

    _rounds: ClassVar[WeakKeyDictionary[Any, "dict[tuple[float, int], Round]"]] = (
        WeakKeyDictionary()
    )

    @classmethod
    def after(cls, loop: asyncio.AbstractEventLoop, delay: float, interval: float) -> "Round":
        """The next round of a loop that is not before ``delay``."""
        length = interval / PINGS_PER_INTERVAL
        key = length, ceil((loop.time() + delay) / length)
        rounds = cls._rounds.setdefault(loop, {})
        if key not in rounds:
            rounds[key] = cls()
            loop.call_at(key[1] * length, rounds[key].begin, rounds, key)
        return rounds[key]

    def begin(self, rounds: "dict[tuple[float, int], Round]", key: tuple[float, int]) -> None:
        """Send the pings."""
        del rounds[key]
        while self:
            one = self.pop()
            one.loop.call_soon(one.send_keepalive_ping)

    def cancel(self) -> None:
        """Do nothing: uvicorn cancels its timers, but this one is of others as well."""
