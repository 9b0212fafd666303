"""The subscriber of one generation: receives messages, confirms subscriptions, never reconnects.

It parses no payload: each is handed on unchanged, in the order of arrival.
"""

import asyncio
from collections.abc import Callable, Sequence

from cluster_pool.backplane.command_connection import Pipe
from cluster_pool.backplane.logins import Raw
from cluster_pool.backplane.refusals import FAULTS, unavailable

BATCH = 500
"""Channels per SUBSCRIBE."""

_REPLIES = (b"subscribe", b"unsubscribe")


class Subscriber(Pipe):
    """One subscribed socket. ``on_message(channel, payload)`` is called for each message."""

    def __init__(self, connection: Raw, on_message: Callable[[bytes, bytes], None]) -> None:
        super().__init__(connection)
        self._on_message = on_message
        self._unanswered: dict[bytes, int] = {}
        self._waiters: dict[bytes, list[asyncio.Future[bool]]] = {}
        self._gone = False

    def confirmed(self, channel: bytes) -> asyncio.Future[bool]:
        """Subscribe; gives True when Redis has confirmed it, False when the socket is gone."""
        return self._ask((channel,))[0]

    async def all_confirmed(self, channels: Sequence[bytes]) -> None:
        """Subscribe to several channels and wait until each of them is confirmed."""
        for future in self._ask(channels):
            await future

    def _ask(self, channels: Sequence[bytes]) -> list[asyncio.Future[bool]]:
        loop = asyncio.get_running_loop()
        futures = []
        for channel in channels:
            future: asyncio.Future[bool] = loop.create_future()
            futures.append(future)
            if self._gone:
                future.set_result(False)
                continue
            self._unanswered[channel] = self._unanswered.get(channel, 0) + 1
            self._waiters.setdefault(channel, []).append(future)
        if not self._gone:
            self.put("SUBSCRIBE", *channels)
        return futures

    def unsubscribe(self, channels: Sequence[bytes]) -> None:
        """Unsubscribe channels. A later subscription is confirmed only by its own reply."""
        for channel in channels:
            self._unanswered[channel] = self._unanswered.get(channel, 0) + 1
        for at in range(0, len(channels), BATCH):
            self.put("UNSUBSCRIBE", *channels[at : at + BATCH])

    async def read_forever(self) -> None:
        """Hand on messages. Ends only with an error or by cancellation."""
        read = self.connection.read_response
        while True:
            try:
                push = await read(disconnect_on_error=False)
            except FAULTS as error:
                raise unavailable("the subscription failed", error) from error
            if push[0] == b"message":
                self._on_message(push[1], push[2])
            elif push[0] in _REPLIES:
                self._confirm(push[1])

    async def drop(self) -> None:
        """Close the socket; open confirmations become False."""
        self._gone = True
        for futures in self._waiters.values():
            for future in futures:
                if not future.done():
                    future.set_result(False)
        self._waiters.clear()
        await super().drop()

    def _confirm(self, channel: bytes) -> None:
        left = self._unanswered.get(channel, 0) - 1
        if left > 0:
            self._unanswered[channel] = left
            return
        self._unanswered.pop(channel, None)
        for future in self._waiters.pop(channel, ()):
            if not future.done():
                future.set_result(True)
