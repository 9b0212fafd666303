"""channels_redis: its pub/sub layer under Channels' consumers; a group for all, one for each."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

from channels.exceptions import ChannelFull
from django.conf import settings

from tools.contenders.served import NOT_SENT, RETURNED, Served, tuning
from tools.contenders.uvicorn_server import serve

LAYER = "channels_redis.pubsub.RedisPubSubChannelLayer"
GROUP = "all"


@contextlib.asynccontextmanager
async def served(redis: str, *, tuned: bool) -> AsyncIterator[Served]:
    """A node. What Channels imports reads Django's settings: the layer and nothing else."""
    hosts = [{"address": redis, **tuning(tuned)}]
    settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": LAYER, "CONFIG": {"hosts": hosts}}})
    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.layers import get_channel_layer

    class Consumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
        """One connection."""

        async def connect(self) -> None:
            self.mine = parse_qs(self.scope["query_string"].decode())["id"][0]
            await self.channel_layer.group_add(GROUP, self.channel_name)
            await self.channel_layer.group_add(self.mine, self.channel_name)
            await self.accept()

        async def disconnect(self, code: int) -> None:
            await self.channel_layer.group_discard(GROUP, self.channel_name)
            await self.channel_layer.group_discard(self.mine, self.channel_name)

        async def chat_message(self, event: dict[str, Any]) -> None:
            await self.send(text_data=event["text"])

    layer = get_channel_layer()

    async def to_one(group: str, message: str) -> str:
        try:
            await layer.group_send(group, {"type": "chat.message", "text": message})
        except ChannelFull:
            return NOT_SENT
        return RETURNED

    async def to_all(message: str) -> str:
        return await to_one(GROUP, message)

    async with serve(Consumer.as_asgi()) as port:
        yield Served(port, to_all, to_one)
