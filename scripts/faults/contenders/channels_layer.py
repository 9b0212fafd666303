"""channels_redis: a channel layer in each process, and a consumer's loop of ``receive()``."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from channels.exceptions import ChannelFull
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

from faults.contenders.contract import Ear, Send
from faults.contenders.count import BROADCAST, NOT_SENT, RETURNED

GROUP = "n"
PAUSE = 0.1
"""Seconds until a consumer whose receive() raised is there again; in Django it would have ended."""


class Layer:
    """A :class:`faults.contenders.contract.Contender` over one of the package's two layers."""

    def __init__(self, make: Callable[..., Any], **options: str) -> None:
        self._make = make
        self._options = options

    @asynccontextmanager
    async def sender(self, redis: str, address: str) -> AsyncIterator[Send]:
        """See :class:`Contender`."""
        layer = self._make(hosts=[redis], **self._options)

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
        layer = self._make(hosts=[redis], **self._options)
        channel: str = await layer.new_channel()
        await layer.group_add(GROUP, channel)
        consuming = asyncio.create_task(_consume(layer, channel, ear))
        yield channel
        consuming.cancel()


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


# The README of channels_redis: on_disconnect and on_reconnect "notify consumers of Redis
# disconnect/reconnect events", so that they can make sure that nothing has been missed.
PUBSUB = Layer(
    RedisPubSubChannelLayer, on_disconnect="redis.disconnect", on_reconnect="redis.reconnect"
)
CORE = Layer(RedisChannelLayer)
