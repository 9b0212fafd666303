"""The parts of our path without us: redis-py and ``websockets``, as their manuals use them.

Run twice as ``python -m tools.bench.bare REDIS LOOP GATE``: with the reading end of a gate for the
process that publishes and is the WebSocket client, with the writing end for the one that subscribes
and is the WebSocket server.
"""

import asyncio
import contextlib
import os
import sys
import time

from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tools.bench.gate import Opened
from tools.bench.node import GATE_TIMEOUT
from tools.bench.payloads import payload
from tools.harness.internals import BACKLOG, loop_factory
from tools.harness.obeying import answer, obey_object
from tools.harness.ports import HOST

CHANNEL = "bare"


class Commands:
    """The commands of either process."""

    def __init__(self, redis: Redis, gate_end: int) -> None:
        self._redis = redis
        self._gate_end = gate_end
        self._gate: Opened | None = None
        self._heard: list[int] = []
        self._listening: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        """Subscribe; each message opens the gate."""
        subscription = self._redis.pubsub(ignore_subscribe_messages=True)
        await subscription.subscribe(CHANNEL)

        async def hear() -> None:
            async for _ in subscription.listen():
                self._heard.append(time.monotonic_ns())
                os.write(self._gate_end, b".")

        self._listening = asyncio.create_task(hear())

    async def stop_listening(self) -> None:
        """Hear no more."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    async def heard(self) -> list[int]:
        """When the messages since the last call came."""
        heard, self._heard = self._heard, []
        return heard

    async def publish(self, count: int, pause: float) -> list[int]:
        """Publish, the next message when this one was heard; when each call began."""
        if self._gate is None:
            self._gate = Opened(self._gate_end)
        begun = []
        for number in range(count):
            if pause:
                await asyncio.sleep(pause)
            message = payload(number)
            begun.append(time.monotonic_ns())
            await self._redis.publish(CHANNEL, message)
            if not await self._gate.wait(GATE_TIMEOUT):
                break
        return begun

    async def echo(self, port: int, count: int, pause: float) -> list[int]:
        """One message after another to the other process's server and back; each in ns."""
        times = []
        async with connect(f"ws://{HOST}:{port}", compression=None) as websocket:
            for number in range(count):
                if pause:
                    await asyncio.sleep(pause)
                message = payload(number).decode()
                begun = time.monotonic_ns()
                await websocket.send(message)
                await websocket.recv()
                times.append(time.monotonic_ns() - begun)
        return times


async def _echo(websocket: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in websocket:
            await websocket.send(message)


async def main(redis_url: str, gate_end: int) -> None:
    """Run until standard input ends."""
    async with (
        Redis.from_url(redis_url) as redis,
        serve(_echo, HOST, 0, compression=None, backlog=BACKLOG) as server,
    ):
        commands = Commands(redis, gate_end)
        answer({"port": next(iter(server.sockets)).getsockname()[1]})
        await obey_object(commands)
        await commands.stop_listening()


if __name__ == "__main__":
    _, url, loop_name, gate_fd = sys.argv
    with asyncio.Runner(loop_factory=loop_factory(loop_name)) as runner:
        runner.run(main(url, int(gate_fd)))
