"""Confirmed sends and broadcasts while the cluster is restarted, and which of them were lost."""

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from typing import Any, Self

from cluster_pool import ClusterPoolError, Publisher, SendResult
from tools.bench.rolling.clients import NAMESPACES, id_of, namespace_of

SENDS_PER_SECOND = 100
BROADCASTS_PER_SECOND = 2


class Traffic:
    """Sends while it is entered."""

    def __init__(self, publisher: Publisher, clients: int) -> None:
        self._publisher = publisher
        self._clients = clients
        self._tasks: set[asyncio.Task[None]] = set()
        self._delivered: list[tuple[int, str]] = []
        self._broadcasts: list[str] = []
        self._numbers = itertools.count()
        self.results: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        self._pacers = [
            asyncio.create_task(self._steadily(SENDS_PER_SECOND, self._send)),
            asyncio.create_task(self._steadily(BROADCASTS_PER_SECOND, self._broadcast)),
        ]
        return self

    async def __aexit__(self, *error: object) -> None:
        for pacer in self._pacers:
            pacer.cancel()
        await asyncio.gather(*self._pacers, *self._tasks, return_exceptions=True)

    async def _steadily(self, rate: float, work: Any) -> None:
        while True:
            task = asyncio.create_task(work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(1 / rate)

    async def _send(self) -> None:
        index, text = random.randrange(self._clients), f"send {next(self._numbers)}"
        try:
            result = await self._publisher.send(
                namespace_of(index), id_of(index), text, confirm=True
            )
        except ClusterPoolError as error:
            self.results[type(error).__name__] += 1
            return
        self.results[result.value] += 1
        if result is SendResult.DELIVERED:
            self._delivered.append((index, text))

    async def _broadcast(self) -> None:
        namespace = random.randrange(NAMESPACES)
        text = f"broadcast {next(self._numbers)}"
        with contextlib.suppress(ClusterPoolError):
            if await self._publisher.broadcast_message(namespace_of(namespace), text):
                self._broadcasts.append(text)

    def lost(self, heard: dict[str, list[str]]) -> tuple[int, int]:
        """How many sends that were answered DELIVERED never came, and how many there were."""
        sets = {int(index): set(texts) for index, texts in heard.items()}
        lost = sum(text not in sets.get(index, ()) for index, text in self._delivered)
        return lost, len(self._delivered)

    def broadcast_share(self, heard: dict[str, list[str]]) -> float:
        """Of all members of all broadcasts, the part that heard them: who was away did not."""
        members = self._clients / NAMESPACES
        came = Counter(text for texts in heard.values() for text in texts)
        wanted = len(self._broadcasts) * members
        return sum(came[text] for text in self._broadcasts) / wanted if wanted else 1.0
