"""Ourselves: two nodes, the receiving one with its server and a WebSocket to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import ClientConnection, connect

from cluster_pool import BackplaneUnavailableError, ClusterPool, Gap, SendResult
from tools.chaos.peers.count import BROADCAST, NOT_SENT, RETURNED, SEND, UNHEARD, UNKNOWN
from tools.chaos.peers.side import Ear, Send
from tools.harness.internals import NodeServer

NAMESPACE, ID = "n", "alice"
ANSWERS = {SendResult.UNREACHABLE: UNHEARD, SendResult.ABSENT: NOT_SENT}


class Ours:
    """A :class:`tools.chaos.peers.side.Contender`."""

    @asynccontextmanager
    async def sender(self, redis: str, address: str) -> AsyncIterator[Send]:
        """See :class:`Contender`."""
        async with ClusterPool(redis) as pool:

            async def send(kind: str, text: str) -> str:
                try:
                    if kind == BROADCAST:
                        nodes = await pool.broadcast_message(NAMESPACE, text)
                        return RETURNED if nodes else UNHEARD
                    result = await pool.send(NAMESPACE, address, text)
                    return RETURNED if result else ANSWERS[result]
                except BackplaneUnavailableError as error:
                    return UNKNOWN if error.maybe_executed else NOT_SENT

            yield send

    @asynccontextmanager
    async def receiver(self, redis: str, ear: Ear) -> AsyncIterator[str]:
        """See :class:`Contender`."""
        pool = ClusterPool(redis)
        pool.on("gap", lambda gap: _report(gap, ear))
        async with pool:
            server = NodeServer(pool, port=0)
            await server.start()
            await pool.wait_ready()
            url = f"ws://127.0.0.1:{server.port}/ws/{NAMESPACE}?id={ID}"
            async with connect(url, proxy=None) as websocket:
                reading = asyncio.create_task(_read(websocket, ear))
                yield ID
                reading.cancel()
            await server.stop()


async def _read(websocket: ClientConnection, ear: Ear) -> None:
    async for text in websocket:
        ear.hear(str(text))


def _report(gap: Gap, ear: Ear) -> None:
    ear.miss(SEND, gap.namespaces.get("", 0))
    ear.miss(BROADCAST, gap.namespaces.get(NAMESPACE, 0))


OURS = Ours()
