"""Messages that ``websockets`` has received and no body has read."""

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from cluster_pool.testing import FAST
from cluster_pool.transports.base import OVERHEAD, Ahead, Reading
from cluster_pool.transports.websockets import WebsocketsTransport
from tests.clusters import Backend
from tests.stubborn import stubborn
from tests.support import async_test, eventually
from tests.transports.frames import CLOSE, TEXT, read_messages
from tools.harness.frames import masked


class Told:
    """A watcher, and a record of its calls."""

    def __init__(self) -> None:
        self.left: list[tuple[int, str]] = []
        self.lost = self.written = 0

    def client_left(self, code: int, reason: str) -> None:
        """See :class:`Watcher`."""
        self.left.append((code, reason))

    def write_pending(self) -> None:
        """See :class:`Watcher`."""
        self.written += 1

    def dropped(self, *, first: bool) -> None:
        """See :class:`Watcher`."""
        assert first is (self.lost == 0)
        self.lost += 1


@async_test
async def test_a_departure_is_noticed_although_nothing_is_read() -> None:
    """Earlier messages are bounded in bytes: the first are kept, the rest is dropped."""
    told, ahead = Told(), Ahead(one=20 * (OVERHEAD + 10), all=10**9, patience=10.0)
    transports: list[WebsocketsTransport] = []

    async def handler(websocket: ServerConnection) -> None:
        transport = WebsocketsTransport(websocket)
        transport.watch(told, ahead)
        transports.append(transport)
        await websocket.wait_closed()

    async with serve(handler, "127.0.0.1", 0, ping_interval=None, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}", ping_interval=None) as client:
            await eventually(lambda: transports)
            (transport,) = transports
            assert transport.reading() is Reading.UNTOUCHED
            for at in range(50):
                await client.send(f"{at:010}")
            await eventually(lambda: told.lost)
            assert transport.reading() is Reading.UNREAD
            assert told.left == []
        await eventually(lambda: told.left)
        assert (told.left, told.written) == ([(1000, "")], 1)
        assert 0 < ahead.held <= ahead.one
        got = [await transport.receive() for _ in range(20)]
        assert got == [f"{at:010}" for at in range(20)]
        await transport.unwatch(told)
        assert ahead.held == 0


@pytest.mark.parametrize(
    "last",
    [masked(CLOSE, b"\x0f\xa0"), b"\x82\xff" + bytes((1, *range(11))), b""],
    ids=["close", "too large", "end"],
)
@async_test
async def test_messages_that_count_as_delivered_are_written_ahead_of_the_end(last: bytes) -> None:
    """A message is in the outbox at nearly every moment; the client reads on."""
    delivered: list[int] = []

    async with Backend(None).pools(timing=FAST) as (pool, _):

        async def handler(websocket: ServerConnection) -> None:
            async with pool.accept(websocket, namespace="n", id="a"):
                while await pool.send("n", "a", str(len(delivered))):
                    delivered.append(len(delivered))
                    await asyncio.sleep(0)

        async with serve(handler, "127.0.0.1", 0, compression=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with stubborn(f"ws://127.0.0.1:{port}/") as client:
                await eventually(lambda: len(client.heard) > 100)
                client.writer.write(last) if last else client.writer.write_eof()
                await eventually(lambda: client.ended)
            await eventually(lambda: not pool.has_namespace("n"))
        messages = read_messages(client.heard)
        assert [int(payload) for opcode, payload in messages if opcode == TEXT] == delivered
