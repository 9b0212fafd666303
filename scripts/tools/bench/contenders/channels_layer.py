"""channels_redis: the pub/sub layer under Channels' own consumers; a group for all, one for each.

Run as ``python -m tools.bench.contenders.channels_layer REDIS GATE``.
"""

import sys
from typing import Any
from urllib.parse import parse_qs

import uvloop
from django.conf import settings

LAYER = "channels_redis.pubsub.RedisPubSubChannelLayer"
GROUP = "all"


def configure(redis: str) -> None:
    """Django's settings, which Channels reads: the layer and nothing else."""
    layer = {"BACKEND": LAYER, "CONFIG": {"hosts": [redis]}}
    settings.configure(CHANNEL_LAYERS={"default": layer})


async def main(gate: int) -> None:
    """Run one server until standard input ends."""
    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.layers import get_channel_layer

    from tools.bench.contenders.uvicorn_server import serve_and_send

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

    async def to_all(message: str) -> None:
        await layer.group_send(GROUP, {"type": "chat.message", "text": message})

    async def to_one(id: str, message: str) -> None:
        await layer.group_send(id, {"type": "chat.message", "text": message})

    await serve_and_send(Consumer.as_asgi(), to_all, to_one, gate)


if __name__ == "__main__":
    configure(sys.argv[1])
    uvloop.run(main(int(sys.argv[2])))
