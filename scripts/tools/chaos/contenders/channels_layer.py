"""channels_redis: a channel layer in each process, and a consumer's loop of ``receive()``."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from channels.exceptions import ChannelFull
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

from tools.chaos.contenders.contract import Ear, Send, tuning
from tools.chaos.contenders.count import BROADCAST, NOT_SENT, RETURNED

GROUP = "n"
PAUSE = 0.1
"""Seconds until a consumer whose receive() raised is there again; in Django it would have ended."""


class Layer:
    """A :class:`tools.chaos.contenders.contract.Contender` over one of the package's two layers."""

    def __init__(
        self, make: Callable[..., Any], host: dict[str, Any] | None = None, **options: Any
    ) -> None:
        self._make = make
        self._host = host or {}
        self._options = options

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
        return self._make(hosts=[{"address": redis, **self._host}], **self._options)


async def _consume(layer: Any, channel: str, ear: Ear) -> None:
    while True:
        try:
            message = await layer.receive(channel)
        except Exception as error:
            ear.notice(f"receive() raised {type(error).__name__}")
            await asyncio.sleep(PAUSE)
            continue
        if message["type"] == "message":
            ear.hear(message["text"])
        else:
            ear.notice(message["type"])


# What the README of channels_redis offers to consumers that must know that they may have missed
# something; whatever it tells them is counted as a notice.
NOTICES: dict[str, Any] = {"on_disconnect": "redis.disconnect", "on_reconnect": "redis.reconnect"}

PUBSUB = Layer(RedisPubSubChannelLayer, **NOTICES)
PUBSUB_TUNED = Layer(RedisPubSubChannelLayer, tuning(), **NOTICES)
CORE = Layer(RedisChannelLayer)
CORE_TUNED = Layer(RedisChannelLayer, tuning(), capacity=1_000_000)
