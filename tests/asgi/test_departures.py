"""A client that has left is no member, and its endpoint ends; on real ASGI servers."""

import asyncio
import contextlib
import signal
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.asgi.servers import Server, installed, running
from tests.servers import BINARIES, RedisServer
from tests.stubborn import stubborn
from tests.support import async_test, eventually

NAMES = [
    pytest.param(name, marks=pytest.mark.skipif(not installed(name), reason="not installed"))
    for name in (
        *("uvicorn websockets", "uvicorn websockets-sansio", "uvicorn wsproto"),
        *("uvicorn ours", "hypercorn", "granian"),
    )
]
every_server = pytest.mark.parametrize("name", NAMES)
KINDS = ("reads", "pushes", "waits", "reads_once", "groups")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests of this file, none of which harms it."""
    with RedisServer(next(iter(BINARIES))) as server:
        yield server


async def dropping(client: Any) -> None:
    """Read messages, as a living client does."""
    with contextlib.suppress(ConnectionClosed):
        async for _ in client:
            pass


def reset(client: Any) -> None:
    """Leave by a TCP reset."""
    tcp = client.transport.get_extra_info("socket")
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.transport.abort()


async def away(server: Server, *users: str) -> bool:
    """Whether none of them is a member, or has an endpoint."""
    state = await server.state()
    return not set(users) & {*state["members"], *state["open"]}


@every_server
@async_test
async def test_a_client_that_leaves_is_no_member_at_once_and_its_endpoint_ends(
    name: str, redis: RedisServer
) -> None:
    """By a Close and by a reset, with bodies that read, push, wait, or stopped reading.

    The code behind the context runs.
    """
    async with running(name, redis.url) as server:
        for leave in ("close", "reset"):
            users = [f"{kind}-{leave}" for kind in KINDS]
            clients = [
                await server.connect(f"/ws/{kind}/{user}").__aenter__()
                for kind, user in zip(KINDS, users, strict=True)
            ]
            readers = [asyncio.create_task(dropping(client)) for client in clients]
            await clients[KINDS.index("reads_once")].send("first")
            await eventually(lambda users=users: server_has(server, users))
            if leave == "close":
                await asyncio.gather(*[client.close() for client in clients])
            else:
                for client in clients:
                    reset(client)
            await eventually(lambda users=users: away(server, *users), 3)
            await asyncio.gather(*readers)
            ended = (await server.state())["ended"]
            assert sorted(one.split()[0] for one in ended if leave in one) == sorted(users)
        assert server.complaints() == []


async def server_has(server: Server, users: list[str]) -> bool:
    state = await server.state()
    return set(users) <= set(state["members"]) & set(state["open"])


@every_server
@async_test
async def test_a_send_to_a_departed_client_is_not_called_delivered(
    name: str, redis: RedisServer
) -> None:
    """The endpoint only waits, as one that takes messages from a queue."""
    async with running(name, redis.url) as server:
        async with server.connect("/ws/waits/alice") as alice:
            assert await server.get("/send/alice") == "delivered"
            assert await alice.recv() == "hello"
        await eventually(lambda: away(server, "alice"), 3)
        assert await server.get("/send/alice") == "absent"


@every_server
@async_test
async def test_unread_messages_do_not_hide_a_departure(name: str, redis: RedisServer) -> None:
    """A body that never reads gets the first bytes kept; the rest is counted and logged."""
    async with running(name, redis.url, INBOUND_BYTES="20000") as server:
        async with server.connect("/ws/waits/chatty") as client:
            for _ in range(100):
                await client.send("x" * 1000)
            await eventually(lambda: dropped(server, 80))
        await eventually(lambda: away(server, "chatty"), 6)
        assert [line for line in server.complaints() if "nobody reads" in line] == (
            server.complaints()
        )
        assert len(server.complaints()) == 1


async def dropped(server: Server, least: int) -> bool:
    return bool((await server.state())["inbound_dropped"] >= least)


@every_server
@async_test
async def test_a_taken_over_and_a_closed_client_end_bodies_that_wait(
    name: str, redis: RedisServer
) -> None:
    """Also clients that do not answer their Close."""
    async with running(name, redis.url) as server:
        async with (
            stubborn(server.url("/ws/waits/old")) as old,
            stubborn(server.url("/ws/pushes/closed")) as closed,
        ):
            await eventually(lambda: server_has(server, ["old", "closed"]))
            async with server.connect("/ws/waits/old"):
                await old.told(4409)
                assert await server.get("/close/closed") == "delivered"
                await closed.told(4001)
                await eventually(lambda: only(server, "old"), 3)
        await eventually(lambda: away(server, "old"), 3)
        assert server.complaints() == []


async def only(server: Server, user: str) -> bool:
    state = await server.state()
    return bool(state["open"] == state["members"] == [user])


@every_server
@async_test
async def test_a_slow_consumer_that_is_cut_loses_its_endpoint(
    name: str, redis: RedisServer
) -> None:
    """Its Close waits behind unread messages.

    ASGI cannot cut the socket, and one log line says so; behind our protocol it is cut, and the
    server stops although the clients are still there.
    """
    async with running(name, redis.url) as server:
        async with (
            stubborn(server.url("/ws/floods/a"), reads=False),
            stubborn(server.url("/ws/floods/b"), reads=False),
        ):
            await eventually(lambda: slow(server, 2))
            await eventually(lambda: away(server, "a", "b"), 20)
            if name == "uvicorn ours":
                server.process.send_signal(signal.SIGTERM)
                assert await server.ended() in (0, -signal.SIGTERM)
            else:
                await eventually(lambda: "no way to cut" in server.said(), 30)
        assert server.said().count("no way to cut") == (name != "uvicorn ours")


async def slow(server: Server, count: int) -> bool:
    return bool((await server.state())["slow_consumers"] == count)


@every_server
@async_test
async def test_an_endpoint_that_pushes_does_not_hold_up_the_stop(
    name: str, redis: RedisServer
) -> None:
    """Its client left long ago, or leaves at its Close."""
    async with running(name, redis.url) as server:
        async with server.connect("/ws/pushes/early") as early:
            await early.recv()
        async with server.connect("/ws/pushes/late") as late:
            reading = asyncio.create_task(dropping(late))
            server.process.send_signal(signal.SIGTERM)
            await server.ended()
            await reading


@async_test
async def test_an_endpoint_that_closes_its_own_connection_is_not_cancelled(
    redis: RedisServer,
) -> None:
    """It knows about the close."""
    async with running("uvicorn websockets-sansio", redis.url) as server:
        async with server.connect("/ws/closes_itself/alice") as alice:
            await dropping(alice)
            assert alice.close_code == 4000
        await eventually(lambda: away(server, "alice"))
        assert (await server.state())["ended"] == ["alice by itself"]
