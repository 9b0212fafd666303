"""A node as people run it: the pool and the server of ``cluster-pool serve``, told what to send.

Run as ``python -m tools.bench.node REDIS NODE-ID LOOP GATE``.
"""

import asyncio
import cProfile
import gc
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from cluster_pool import ClusterPool, Connection, SendResult
from cluster_pool.server import collector
from cluster_pool.server.node import NodeServer
from tools.bench.children import Opened, obey, say
from tools.bench.payloads import member_id, payload

GATE_TIMEOUT = 10.0
JOIN_TOGETHER = 2000


class Commands:
    """What this node can be asked to do."""

    def __init__(self, pool: ClusterPool, gate: Opened) -> None:
        self._pool = pool
        self._gate = gate
        self._ids: list[str] = []
        self._rounds: list[list[str]] = []
        self._profile: cProfile.Profile | None = None
        self._held: list[Connection] = []
        self._watch: asyncio.Task[None] | None = None
        self._longest_turn = 0.0

    async def know(self, first: int, count: int) -> dict[str, Any]:
        """The ids to which targeted messages will go."""
        self._ids = [member_id(index) for index in range(first, first + count)]
        return {}

    async def load(self, rounds: int, burst: int, first: int, targeted: bool) -> dict[str, Any]:
        """Make the messages of the next rounds, which are the user's and not ours to count."""
        self._rounds = [
            [payload(at, id).decode() for id in self._ids]
            if targeted
            else [payload(number).decode() for number in range(at, at + burst)]
            for at in range(first, first + rounds * burst, burst)
        ]
        return {}

    async def broadcast(self, namespace: str) -> dict[str, Any]:
        """Publish the loaded rounds; a round at once, the next when it has arrived."""
        publish = self._pool.broadcast_message
        unheard = lost = 0
        for messages in self._rounds:
            if len(messages) == 1:
                heard = [await publish(namespace, messages[0])]
            else:
                heard = await asyncio.gather(*[publish(namespace, one) for one in messages])
            unheard += heard.count(0)
            if not await self._gate.wait(GATE_TIMEOUT):
                lost += 1
                break
        return {"unheard": unheard, "lost": lost}

    async def targeted(self, namespace: str) -> dict[str, Any]:
        """Send the loaded rounds: one message to each known id, all of a round at once."""

        async def send_all(ids: list[str], messages: list[str]) -> list[SendResult]:
            send = self._pool.send_nowait
            sent = [send(namespace, id, one) for id, one in zip(ids, messages, strict=True)]
            return [await result for result in sent]

        return await self._send_rounds(send_all)

    async def gathered(self, namespace: str) -> dict[str, Any]:
        """The same with a coroutine for each, of which ``gather`` makes tasks."""

        async def send_all(ids: list[str], messages: list[str]) -> list[SendResult]:
            send = self._pool.send
            together = [send(namespace, id, one) for id, one in zip(ids, messages, strict=True)]
            return await asyncio.gather(*together)

        return await self._send_rounds(send_all)

    async def _send_rounds(
        self, send_all: Callable[[list[str], list[str]], Awaitable[list[SendResult]]]
    ) -> dict[str, Any]:
        unrouted = lost = 0
        for messages in self._rounds:
            results = await send_all(self._ids, messages)
            unrouted += len(results) - results.count(SendResult.ROUTED)
            if not await self._gate.wait(GATE_TIMEOUT):
                lost += 1
                break
        return {"unrouted": unrouted, "lost": lost}

    async def one_at_a_time(
        self, namespace: str, count: int, first: int, pause: float
    ) -> dict[str, Any]:
        """Single sends to the first known id with a pause before each; their times."""
        id = self._ids[0]
        begun, answered, unrouted, lost = [], [], 0, 0
        for number in range(first, first + count):
            if pause:
                await asyncio.sleep(pause)
            message = payload(number, id).decode()
            begun.append(time.monotonic_ns())
            result = await self._pool.send(namespace, id, message)
            answered.append(time.monotonic_ns())
            unrouted += result is not SendResult.ROUTED
            if not await self._gate.wait(GATE_TIMEOUT):
                lost += 1
                break
        return {"begun": begun, "answered": answered, "unrouted": unrouted, "lost": lost}

    async def join(self, namespace: str, count: int) -> dict[str, Any]:
        """Members without a socket, claimed as every member is."""

        def send(message: str | bytes) -> None:
            raise AssertionError("nothing is sent to these")

        def close(code: int, reason: str) -> None:
            pass

        started = time.monotonic()
        for at in range(0, count, JOIN_TOGETHER):
            together = [
                Connection(member_id(index), namespace, (send, close))
                for index in range(at, min(at + JOIN_TOGETHER, count))
            ]
            await asyncio.gather(*[self._pool.new_connection(one) for one in together])
            self._held += together
        seconds = time.monotonic() - started
        return {"count": await self._pool.count(namespace), "seconds": seconds}

    async def count(self, namespace: str) -> dict[str, Any]:
        """How many members the cluster has."""
        return {"count": await self._pool.count(namespace)}

    async def longest_turn(self) -> dict[str, Any]:
        """Seconds of CPU of the longest turn of the loop since the last call, the first of which
        begins to watch."""
        if self._watch is None:
            self._watch = asyncio.create_task(self._watch_turns())
        longest, self._longest_turn = self._longest_turn, 0.0
        return {"seconds": longest}

    async def _watch_turns(self) -> None:
        while True:
            begun = time.thread_time()
            await asyncio.sleep(0.001)
            self._longest_turn = max(self._longest_turn, time.thread_time() - begun)

    async def collect(self) -> dict[str, Any]:
        """Collect garbage, so that memory is what is held."""
        gc.collect()
        return {}

    async def statistics(self) -> dict[str, Any]:
        """The pool's counters."""
        return self._pool.statistics()

    async def profile(self, path: str = "") -> dict[str, Any]:
        """Begin to profile; with a path, end and write what was found."""
        if self._profile is None:
            self._profile = cProfile.Profile()
            self._profile.enable()
        else:
            self._profile.disable()
            self._profile.dump_stats(path)
            self._profile = None
        return {}


async def main(redis: str, node_id: str, gate: int) -> None:
    """Run the node until standard input ends."""
    async with ClusterPool(redis, node_id=node_id) as pool:
        server = NodeServer(pool, port=0)
        await server.start()
        await pool.wait_ready()
        collector.tune()
        commands = Commands(pool, Opened(gate))
        names = [name for name in vars(Commands) if not name.startswith("_")]
        say(port=server.port)
        await obey({name: getattr(commands, name) for name in names})
        await server.stop()


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """The event loop by its name."""
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return asyncio.new_event_loop


if __name__ == "__main__":
    _, redis_url, node_name, loop_name, gate_fd = sys.argv
    with asyncio.Runner(loop_factory=loop_factory(loop_name)) as runner:
        runner.run(main(redis_url, node_name, int(gate_fd)))
