"""What a contender's program is asked to do: send numbered messages, to all or to one id each."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tools.bench.children import Opened, obey, say
from tools.bench.payloads import payload

GATE_TIMEOUT = 60.0

ToAll = Callable[[str], Awaitable[Any]]
ToOne = Callable[[str, str], Awaitable[Any]]


class Sender:
    """The commands of ``tools.bench.node`` that ``peers`` uses, over somebody else's functions."""

    def __init__(self, to_all: ToAll, to_one: ToOne | None, gate: Opened) -> None:
        self._to_all = to_all
        self._to_one = to_one
        self._gate = gate
        self._ids: list[str] = []
        self._rounds: list[list[str]] = []

    async def know(self, ids: list[str]) -> dict[str, Any]:
        """The ids to which targeted messages will go."""
        self._ids = ids
        return {}

    async def load(self, rounds: int, burst: int, first: int, targeted: bool) -> dict[str, Any]:
        """Make the messages of the next rounds, which are not counted."""
        self._rounds = [
            [payload(at, id).decode() for id in self._ids]
            if targeted
            else [payload(number).decode() for number in range(at, at + burst)]
            for at in range(first, first + rounds * burst, burst)
        ]
        return {}

    async def broadcast(self, namespace: str) -> dict[str, Any]:
        """Send the loaded rounds to all; a round at once, the next when it has arrived."""
        for messages in self._rounds:
            if len(messages) == 1:
                await self._to_all(messages[0])
            else:
                await asyncio.gather(*map(self._to_all, messages))
            if not await self._gate.wait(GATE_TIMEOUT):
                return {"lost": 1}
        return {"lost": 0}

    async def targeted(self, namespace: str) -> dict[str, Any]:
        """Send the loaded rounds: one message to each known id, all of a round at once."""
        assert self._to_one is not None
        for messages in self._rounds:
            await asyncio.gather(*map(self._to_one, self._ids, messages))
            if not await self._gate.wait(GATE_TIMEOUT):
                return {"lost": 1}
        return {"lost": 0}

    async def obey(self, port: int) -> None:
        """Tell the port, and do what is asked until standard input ends."""
        names = ("know", "load", "broadcast", "targeted")
        say(port=port)
        await obey({name: getattr(self, name) for name in names})
