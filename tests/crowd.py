"""Clients that come back at once, and somebody who sends to them all the while."""

import asyncio
import contextlib
import random
from collections import Counter
from typing import Self

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cluster_pool import Publisher, SendResult

NAMESPACE = "room"


class Crowd:
    """Clients at one address, which reconnect without any delay.

    Attributes:
        codes: how often a close had which code.
        refused: what went wrong with a handshake: a status, or an error.
        heard: every message that any of them got.
    """

    def __init__(self, url: str, size: int) -> None:
        self._url = url
        self.ids = [f"c{at}" for at in range(size)]
        self.codes: Counter[int | None] = Counter()
        self.refused: list[str] = []
        self.heard: set[str] = set()
        self.open: set[str] = set()
        self._leaving = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._live(id)) for id in self.ids]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._leaving = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _live(self, id: str) -> None:
        while not self._leaving:
            try:
                async with connect(f"{self._url}?id={id}", compression=None) as websocket:
                    self.open.add(id)
                    with contextlib.suppress(ConnectionClosed):
                        while True:
                            self.heard.add(str(await websocket.recv()))
                self.codes[websocket.close_code] += 1
            except InvalidStatus as error:
                self.refused.append(f"{id}: {error.response.status_code}")
                await asyncio.sleep(0.1)  # as a client that comes back does
            except (OSError, EOFError) as error:
                self.refused.append(f"{id}: {error!r}")
                await asyncio.sleep(0.1)  # the same
            finally:
                self.open.discard(id)

    def all_open(self) -> bool:
        """Whether every client is connected."""
        return len(self.open) == len(self.ids)


class Mail:
    """Confirmed sends to random clients, one after another; knows which were answered DELIVERED."""

    def __init__(self, publisher: Publisher, ids: list[str]) -> None:
        self._publisher = publisher
        self._ids = ids
        self.answers: Counter[SendResult] = Counter()
        self.delivered: list[str] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._send_all())
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _send_all(self) -> None:
        at = 0
        while True:
            at += 1
            text = f"message {at}"
            result = await self._publisher.send(
                NAMESPACE, random.choice(self._ids), text, confirm=True
            )
            self.answers[result] += 1
            if result is SendResult.DELIVERED:
                self.delivered.append(text)
            await asyncio.sleep(0.002)
