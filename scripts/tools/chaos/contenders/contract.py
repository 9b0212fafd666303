"""What every contender offers: a door for the sending process, and one for the receiving."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from redis.asyncio import Redis

from tools.chaos.contenders.count import Heard

Send = Callable[[str, str], Awaitable[str]]
"""Sends (kind, text) to the connection; gives an outcome. What it raises counts as unknown."""


def tuning() -> dict[str, Any]:
    """What redis-py offers against bad links, for those who hand its options through.

    The retry policy is that of a plain ``Redis()``, which one that is made from a URL lacks.
    """
    return {"retry": Redis().get_retry(), "health_check_interval": 1, "socket_keepalive": True}


class Ear:
    """What the receiver's connection hears, and what its API reports beside that."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.latest: dict[int, int] = {}
        """The greatest number heard of each stream."""
        self.reported: Counter[str] = Counter()
        self.notices: Counter[str] = Counter()

    def hear(self, text: str) -> None:
        """A message has arrived: ``STREAM NUMBER``."""
        stream, number = map(int, text.split(" "))
        self.heard.append(Heard(stream, number, time.monotonic()))
        self.latest[stream] = max(number, self.latest.get(stream, 0))

    def miss(self, kind: str, messages: int) -> None:
        """The API reports messages as missing."""
        self.reported[kind] += messages

    def notice(self, what: str) -> None:
        """The API tells something else about its state."""
        self.notices[what] += 1


class Contender(Protocol):
    """Both doors are open while their context lasts."""

    def sender(self, redis: str, address: str) -> AbstractAsyncContextManager[Send]:
        """What sends to the connection at ``address`` and broadcasts to all."""

    def receiver(self, redis: str, ear: Ear) -> AbstractAsyncContextManager[str]:
        """One connection whose messages go to ``ear``; gives its address."""
