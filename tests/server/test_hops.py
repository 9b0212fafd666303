"""Plain clients that open another connection before the former one is closed."""

import asyncio
import contextlib

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from cluster_pool import BackplaneUnavailableError, ClusterPool
from tests.server.framing import node
from tests.server.moving import ROOM, ROOMS, Place, Sender
from tests.servers import RedisServer
from tests.support import async_test, eventually


class Hopper:
    """A plain client that reads its former connection to the end."""

    def __init__(self, id: str) -> None:
        self.legs: list[list[str]] = []
        self.codes: list[int | None] = []
        self._id = id
        self._tasks: list[asyncio.Task[None]] = []
        self._socket: ClientConnection | None = None

    async def hop(self, place: Place) -> None:
        """Open another connection."""
        uri = f"ws://127.0.0.1:{place.port}/ws/{ROOM}?id={self._id}"
        self._socket = await connect(uri)
        self.legs.append([])
        self._tasks.append(asyncio.create_task(self._read(self._socket, self.legs[-1])))

    async def _read(self, socket: ClientConnection, leg: list[str]) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                leg.append(str(await socket.recv()))
        self.codes.append(socket.close_code)

    async def cut(self) -> None:
        """End the newest connection without a Close."""
        assert self._socket is not None
        self._socket.transport.abort()
        await self._tasks[-1]

    async def end(self) -> None:
        """Go for good."""
        assert self._socket is not None
        await self._socket.close()
        await asyncio.gather(*self._tasks)

    @property
    def got(self) -> list[str]:
        """All that it has got, one connection after another."""
        return [message for leg in self.legs for message in leg]


async def is_there(pool: ClusterPool) -> bool:
    """Whether the client is a member."""
    with contextlib.suppress(BackplaneUnavailableError):
        return await pool.locate(ROOM, "client") is not None
    return False


async def is_gone(pool: ClusterPool) -> bool:
    """Whether the client is certainly no member."""
    with contextlib.suppress(BackplaneUnavailableError):
        return await pool.locate(ROOM, "client") is None
    return False


@pytest.mark.real
@pytest.mark.parametrize("nodes", [1, 2])
@async_test
async def test_a_client_that_hops_gets_every_message_once(
    own_server: RedisServer, nodes: int
) -> None:
    """To the same node as well: the former connection was closed, and its client has answered."""
    async with (
        node(own_server, "a", history=ROOMS) as (_, server),
        node(own_server, "b", history=ROOMS) as (two, other),
    ):
        places = [server, other][:nodes]
        hopper = Hopper("client")
        await hopper.hop(places[0])

        async def send(text: str) -> None:
            if int(text) % 2:
                await two.broadcast_message(ROOM, text)
            else:
                await two.send(ROOM, "client", text)

        sender = Sender(send)
        for at in range(8):
            await hopper.hop(places[(at + 1) % nodes])
            await eventually(lambda n=at: len(hopper.codes) > n)
        sent = await sender.end()
        await eventually(lambda: hopper.got[-1:] == sent[-1:])
        assert hopper.got == sent
        assert set(hopper.codes) == {4409}
        await hopper.end()


@pytest.mark.real
@pytest.mark.parametrize("nodes", [1, 2])
@async_test
async def test_a_close_that_was_answered_counts_though_the_next_connection_is_cut(
    own_server: RedisServer, nodes: int
) -> None:
    """The client of the former connection had shown that it has everything."""
    async with (
        node(own_server, "a", history=ROOMS) as (one, server),
        node(own_server, "b", history=ROOMS) as (_, other),
    ):
        hopper = Hopper("client")
        await hopper.hop(server)
        await one.broadcast_message(ROOM, "1")
        await eventually(lambda: hopper.got == ["1"])
        await hopper.hop([server, other][nodes - 1])
        await eventually(lambda: hopper.codes == [4409])
        await hopper.cut()
        await eventually(lambda: is_gone(one))
        await one.broadcast_message(ROOM, "2")
        await hopper.hop(server)
        await eventually(lambda: hopper.got[-1:] == ["2"])
        assert hopper.got == ["1", "2"]
        await hopper.end()


@pytest.mark.real
@pytest.mark.parametrize("seen", [False, True])
@async_test
async def test_numbers_that_redis_gives_again_are_other_messages(
    own_server: RedisServer, seen: bool
) -> None:
    """It was restarted with a snapshot that lacks the last messages: the client has those that had
    the numbers first, and none of those that get them now; also if it had hopped meanwhile."""
    async with node(own_server, "a", history=ROOMS) as (pool, server):
        hopper = Hopper("client")
        await hopper.hop(server)
        await pool.broadcast_message(ROOM, "1")
        await asyncio.to_thread(own_server.save)
        for text in ("2", "3"):
            await pool.broadcast_message(ROOM, text)
        await eventually(lambda: hopper.got == ["1", "2", "3"])
        own_server.kill()
        own_server.launch(empty=False)
        await asyncio.to_thread(own_server.wait_until_it_answers)
        await eventually(lambda: not pool.ready or pool.statistics()["generations"] > 1)
        await eventually(lambda: is_there(pool), 30)
        if seen:
            await hopper.hop(server)
            await eventually(lambda: hopper.codes == [4409])
        await hopper.cut()
        await eventually(lambda: is_gone(pool))
        again = ["b", "c", "d"]
        for text in again:
            await pool.broadcast_message(ROOM, text)
        await hopper.hop(server)
        await eventually(lambda: hopper.got[-1:] == ["d"])
        assert [text for text in hopper.got if text in again] == again
        if seen:
            assert hopper.got == ["1", "2", "3", *again]
        await hopper.end()
