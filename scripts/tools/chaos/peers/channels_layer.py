"""channels_redis: a channel layer in each process, and a consumer's loop of ``receive()``."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from channels.exceptions import ChannelFull
from channels_redis.pubsub import RedisPubSubChannelLayer

from tools.chaos.peers.count import BROADCAST, NOT_SENT, RETURNED
from tools.chaos.peers.side import Ear, Send, tuning

GROUP = "n"
PAUSE = 0.1
"""Seconds until a consumer whose receive() raised is there again; in Django it would have ended."""


class Layer:
    """A :class:`tools.chaos.peers.side.Contender` over the package's pub/sub layer."""

    def __init__(self, host: dict[str, Any] | None = None) -> None:
        self._host = host or {}

    @asynccontextmanager
    async def sender(self, redis: str, address: str) -> AsyncIterator[Send]:
        """See :class:`Contender`."""
        layer = self._layer(redis)

        async def send(kind: str, text: str) -> str:
            message = {"type": "message", "text": text}
            try:
                if kind == BROADCAST:
                    await layer.group_send(GROUP, message)
                else:
                    await layer.send(address, message)
            except ChannelFull:
                return NOT_SENT
            return RETURNED

        yield send

    @asynccontextmanager
    async def receiver(self, redis: str, ear: Ear) -> AsyncIterator[str]:
        """See :class:`Contender`."""
        layer = self._layer(redis)
        channel: str = await layer.new_channel()
        await layer.group_add(GROUP, channel)
        consuming = asyncio.create_task(_consume(layer, channel, ear))
        yield channel
        consuming.cancel()

    def _layer(self, redis: str) -> Any:
        return RedisPubSubChannelLayer(hosts=[{"address": redis, **self._host}])


async def _consume(layer: Any, channel: str, ear: Ear) -> None:
    while True:
        try:
            message = await layer.receive(channel)
        except Exception:
            await asyncio.sleep(PAUSE)
            continue
        if message["type"] == "message":
            ear.hear(message["text"])


PUBSUB = Layer()
PUBSUB_TUNED = Layer(tuning())
