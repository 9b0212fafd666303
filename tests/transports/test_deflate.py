"""Messages that are compressed once for many clients, on real sockets with real clients."""

import asyncio
import contextlib
import os
import resource
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, NegotiationError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from cluster_pool import ClusterPool
from cluster_pool.core import message as messages
from cluster_pool.core.message import COMPRESSES, Outgoing, frame_header
from cluster_pool.testing import FAST
from cluster_pool.transports.deflate import SHARED, WINDOW
from cluster_pool.uvicorn import CompressingProtocol
from tests.server.running import node
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tests.transports.test_uvicorn import served

LONG = "a message that is long enough; " * 40
WAYS = ("serve", "uvicorn")
every_way = pytest.mark.parametrize("way", WAYS)


@contextlib.asynccontextmanager
async def compressing(way: str, redis: RedisServer) -> AsyncIterator[tuple[ClusterPool, str]]:
    """A pool with compression, and where its WebSockets are, without the id."""
    if way == "serve":
        async with node(redis, compression=True) as (pool, server):
            yield pool, f"ws://127.0.0.1:{server.port}/ws/room?id="
        return
    app = FastAPI()
    async with ClusterPool(redis.url, timing=FAST) as pool:

        @app.websocket("/ws/{user}")
        async def endpoint(websocket: WebSocket, user: str) -> None:
            async with pool.accept(websocket, namespace="room", id=user) as connection:
                async for message in connection:
                    await connection.send(message)

        async with served(app, CompressingProtocol) as url:
            yield pool, f"{url}/ws/"


def offering(**offer: Any) -> Any:
    """Options of a client that offers compression."""
    return {"compression": None, "extensions": [ClientPerMessageDeflateFactory(**offer)]}


def agreed(client: ClientConnection) -> str:
    """The extension that server and client agreed to."""
    assert client.response is not None
    return str(client.response.headers.get("Sec-WebSocket-Extensions", ""))


@pytest.fixture
def compressions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The windows of all messages that were compressed for clients, one for each."""
    made: list[int] = []
    compress = messages._compress

    def counted(message: Outgoing, window: int) -> bytes:
        made.append(window)
        return compress(message, window)

    monkeypatch.setattr(messages, "_compress", counted)
    return made


async def members(pool: ClusterPool, count: int) -> bool:
    return await pool.count("room") == count


@every_way
@async_test
async def test_a_broadcast_is_compressed_once_for_all_clients_with_the_same_window(
    way: str, own_server: RedisServer, compressions: list[int]
) -> None:
    """Once for those of the usual window, once for those of a smaller one, never for the rest."""
    async with contextlib.AsyncExitStack() as stack, compressing(way, own_server) as (pool, url):
        usual = [await stack.enter_async_context(connect(f"{url}u{at}")) for at in range(5)]
        small = [
            await stack.enter_async_context(
                connect(f"{url}s{at}", **offering(server_max_window_bits=9))
            )
            for at in range(3)
        ]
        plain = await stack.enter_async_context(connect(f"{url}p", compression=None))
        await eventually(lambda: members(pool, 9))
        assert agreed(plain) == ""
        for client in usual:
            assert "server_no_context_takeover" in agreed(client)
            assert f"server_max_window_bits={WINDOW}" in agreed(client)
        assert "server_max_window_bits=9" in agreed(small[0])
        for message in (LONG, LONG.encode()):
            compressions.clear()
            await pool.broadcast_message("room", message)
            for client in (*usual, *small, plain):
                assert await client.recv() == message
            assert sorted(compressions) == [9, WINDOW]


@every_way
@async_test
async def test_small_and_large_messages_keep_their_order(way: str, own_server: RedisServer) -> None:
    """Texts, bytes and what cannot be compressed, sent to one and to all in the same tick."""
    sizes = (0, 1, COMPRESSES - 1, COMPRESSES, 5000, 300_000)
    wanted = [made for size in sizes for made in ("x" * size, b"y" * size, os.urandom(size))]
    async with compressing(way, own_server) as (pool, url), connect(f"{url}a") as client:
        await eventually(lambda: members(pool, 1))
        sending = [
            asyncio.ensure_future(
                pool.send("room", "a", message, confirm=True)
                if at % 2
                else pool.broadcast_message("room", message)
            )
            for at, message in enumerate(wanted)
        ]
        assert [await client.recv() for _ in wanted] == wanted
        await asyncio.gather(*sending)


@every_way
@async_test
async def test_a_client_may_prevent_or_wish_for_a_context(
    way: str, own_server: RedisServer
) -> None:
    """Neither side keeps one, whatever it offers; what it sends is understood."""
    async with compressing(way, own_server) as (pool, url):
        for offer in (
            {},
            {"server_no_context_takeover": True, "client_no_context_takeover": True},
            {"server_max_window_bits": 15, "client_max_window_bits": 10},
        ):
            async with connect(f"{url}a", **offering(**offer)) as client:
                assert "server_no_context_takeover" in agreed(client)
                assert "client_no_context_takeover" in agreed(client)
                await eventually(lambda: members(pool, 1))
                for _ in range(3):
                    await client.send(LONG)
                    await pool.broadcast_message("room", LONG)
                    assert await client.recv() == LONG
                if way == "uvicorn":  # its endpoint echoes
                    assert [await client.recv() for _ in range(3)] == [LONG] * 3


@every_way
@async_test
async def test_a_bomb_is_closed_before_it_is_large(way: str, own_server: RedisServer) -> None:
    """Half a gigabyte in half a megabyte: the limit of a message holds for what it grows to."""
    packer = zlib.compressobj(9, wbits=-15)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(512))
    packed += packer.flush(zlib.Z_SYNC_FLUSH)
    bomb = bytearray(frame_header(False, len(packed)))
    bomb[0] |= 0x40
    bomb[1] |= 0x80
    before = peak()
    async with compressing(way, own_server) as (pool, url), connect(f"{url}a") as client:
        await eventually(lambda: members(pool, 1))
        client.transport.write(bytes(bomb) + bytes(4) + packed)
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1009
        await eventually(lambda: members(pool, 0))
    assert peak() - before < 128 * 2**20


def peak() -> int:
    """The largest memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_the_offer_of_a_window_of_eight_bits_is_not_accepted() -> None:
    """Zlib cannot compress with one: its client is served without compression."""
    with pytest.raises(NegotiationError):
        SHARED.process_request_params([("server_max_window_bits", "8")], [])
