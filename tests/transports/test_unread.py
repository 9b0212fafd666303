"""Messages that ``websockets`` has received and no body has read."""

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from cluster_pool.transports.base import OVERHEAD, Ahead, Reading
from cluster_pool.transports.websockets import WebsocketsTransport
from tests.support import async_test, eventually


class Told:
    """A watcher, and a record of its calls."""

    def __init__(self) -> None:
        self.left: list[tuple[int, str]] = []
        self.lost = 0

    def client_left(self, code: int, reason: str) -> None:
        """See :class:`Watcher`."""
        self.left.append((code, reason))

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
        assert told.left == [(1000, "")]
        assert 0 < ahead.held <= ahead.one
        got = [await transport.receive() for _ in range(20)]
        assert got == [f"{at:010}" for at in range(20)]
        await transport.unwatch(told)
        assert ahead.held == 0
