"""Calls of a node or of a publisher: numbered, told when they begin and end, and watched."""

import asyncio
import time
from typing import Any

from cluster_pool import ClusterPool, ClusterPoolError, Publisher
from tools.chaos.books import (
    BROADCAST,
    CLOSE,
    CONFIRM,
    COUNT,
    LOCATE,
    MEMBERS,
    ORDERED,
    SENT_AND_CLOSED,
    THEN_CLOSE,
)
from tools.chaos.watch import Watch
from tools.harness.obeying import tell

TIMEOUT = 2.0
"""Seconds; of every call, as nobody here says otherwise."""


class Caller:
    """Makes calls through a node's pool, or through a publisher, under a name."""

    def __init__(self, sender: ClusterPool | Publisher, name: str) -> None:
        self._sender = sender
        self._name = name
        self._number = 0
        self._calls: set[asyncio.Task[Any]] = set()
        self._watch = Watch(self._unanswered)
        self._watching = asyncio.create_task(self._watch.run())

    @property
    def watched(self) -> int:
        """How many calls were made."""
        return self._watch.watched

    def call_soon(self, kind: str, namespace: str, id: str = "") -> None:
        """Calls begin in the order of these calls, as tasks begin in the order they are made."""
        self.keep(asyncio.create_task(self.call(kind, namespace, id)))

    def keep(self, task: "asyncio.Task[Any]") -> None:
        """Let :meth:`finish` wait for this, too."""
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def finish(self) -> None:
        """Wait until every call is answered, or overdue and cancelled."""
        while self._calls and self._watch.open:
            await asyncio.wait(self._calls, timeout=0.2)
        if self._calls:
            await asyncio.wait(self._calls, timeout=TIMEOUT)

    async def stop(self) -> None:
        """Watch no more."""
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    async def call(self, kind: str, namespace: str, id: str = "", more: str = "") -> int:
        """Make one call, with a message that goes on with ``more``; gives its number."""
        self._number += 1
        number = self._number
        tell("begun", [kind, number, namespace, id, time.monotonic()])
        watched = self._watch.begin(f"{kind} {number} to {namespace}/{id}", TIMEOUT)
        outcome, why = "unknown", ""
        try:
            if kind in (COUNT, MEMBERS, LOCATE):
                outcome = await self._read(kind, namespace, id)
            else:
                outcome = await self._perform(kind, namespace, id, number, more)
        except ClusterPoolError as error:
            outcome = "unknown" if getattr(error, "maybe_executed", False) else "not_sent"
            why = str(error)
        finally:
            self._watch.end(watched)
            tell("ended", [number, time.monotonic(), outcome, why])
        return number

    async def _perform(self, kind: str, namespace: str, id: str, number: int, more: str) -> str:
        sender, message = self._sender, f"{self._name} {number} {more}"
        if kind == BROADCAST:
            return "heard" if await sender.broadcast_message(namespace, message) else "unheard"
        if kind == THEN_CLOSE:
            result = await sender.send_then_close(namespace, id, message, SENT_AND_CLOSED)
        elif kind == CLOSE:
            result = await sender.close(namespace, id, ORDERED, confirm=True)
        elif kind == CONFIRM or number % 2:
            result = await sender.send(namespace, id, message, confirm=kind == CONFIRM)
        else:
            result = await sender.send_nowait(namespace, id, message)
        return result.value

    async def _read(self, kind: str, namespace: str, id: str) -> str:
        """The registry's answer, behind a "="."""
        if kind == COUNT:
            return f"={await self._sender.count(namespace)}"
        if kind == MEMBERS:
            return f"={' '.join(sorted([one.id async for one in self._sender.members(namespace)]))}"
        member = await self._sender.locate(namespace, id)
        return "=" if member is None else f"={member.node}"

    def _unanswered(self, about: str, seconds: float) -> None:
        tell("unanswered", [about, time.monotonic(), seconds])
