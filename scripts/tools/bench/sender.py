"""The commands of a program that sends: rounds of numbered messages, to all or to one id each.

Needs the standard library alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tools.bench.gate import Opened
from tools.bench.payloads import payload

GATE_TIMEOUT = 60.0

ToAll = Callable[[Sequence[str]], Awaitable[int]]
"""Sends messages to everybody, all at once; gives how many of them reached nobody."""
ToEach = Callable[[Sequence[str], Sequence[str]], Awaitable[int]]
"""The same, each message to one of the ids."""


class Sender:
    """Sends by two functions of the measured library. Its public methods are the commands."""

    def __init__(self, to_all: ToAll, to_each: ToEach | None, gate: Opened) -> None:
        self._to_all = to_all
        self._to_each = to_each
        self._gate = gate
        self._ids: list[str] = []
        self._rounds: list[list[str]] = []

    async def know(self, ids: list[str]) -> None:
        """The ids to which targeted messages will go."""
        self._ids = ids

    async def load(self, rounds: int, burst: int, first: int, targeted: bool) -> None:
        """Make the messages of the next rounds, which are the user's and not ours to count."""
        self._rounds = [
            [payload(at, id).decode() for id in self._ids]
            if targeted
            else [payload(number).decode() for number in range(at, at + burst)]
            for at in range(first, first + rounds * burst, burst)
        ]

    async def broadcast(self) -> dict[str, int]:
        """Send the loaded rounds to all; a round at once, the next when it has arrived."""
        return await self._send(self._to_all)

    async def targeted(self) -> dict[str, int]:
        """Send the loaded rounds: one message to each known id, all of a round at once."""
        to_each, ids = self._to_each, self._ids
        assert to_each is not None
        return await self._send(lambda messages: to_each(ids, messages))

    async def _send(self, send: ToAll) -> dict[str, int]:
        unheard = 0
        for messages in self._rounds:
            unheard += await send(messages)
            if not await self._gate.wait(GATE_TIMEOUT):
                return {"sends unheard": unheard, "rounds lost": 1}
        return {"sends unheard": unheard, "rounds lost": 0}


def each_alone(
    to_all: Callable[[str], Awaitable[Any]], to_one: Callable[[str, str], Awaitable[Any]]
) -> tuple[ToAll, ToEach]:
    """Both functions of a library that sends one message at a time and counts no receivers."""

    async def all_at_once(messages: Sequence[str]) -> int:
        if len(messages) == 1:
            await to_all(messages[0])
        else:
            await asyncio.gather(*map(to_all, messages))
        return 0

    async def each_at_once(ids: Sequence[str], messages: Sequence[str]) -> int:
        await asyncio.gather(*map(to_one, ids, messages))
        return 0

    return all_at_once, each_at_once
