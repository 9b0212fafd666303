"""Turns of clients behind our protocol of uvicorn."""

import asyncio
import os
import zlib
from typing import Any

from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import connect

from cluster_pool import Limits
from cluster_pool.testing import FAST
from cluster_pool.transports.asgi_servers import EXTENSION
from cluster_pool.transports.uvicorn_reading import FRAMES, INFLATED, LARGEST_PIECE
from cluster_pool.uvicorn import CompressingProtocol, Protocol
from tests.clusters import Backend
from tests.stubborn import stubborn
from tests.support import async_test, eventually
from tests.transports.served import QUIET, served
from tools.harness.frames import BINARY, CLOSE, FIN, TEXT, client_frame, masked

pytestmark = QUIET
COUNT = 20_000
RSV1 = 0x40
GROWN = 2**20
"""Bytes that a compressed message becomes."""
LARGE = "x" * 3_000_000


@async_test
async def test_a_flood_is_read_in_turns_in_order_and_to_its_end() -> None:
    """Tiny messages in one packet, a large one among them, and a Close behind."""
    heard: list[str] = []
    steps: list[int] = [0]
    limits = Limits(inbound_bytes=2**25, inbound_per_second=10**7, message_bytes=2**22)

    async with Backend(None).pools(timing=FAST, limits=limits) as (pool, _):
        app = FastAPI()

        @app.websocket("/")
        async def endpoint(websocket: WebSocket) -> None:
            async with pool.accept(websocket, namespace="n") as connection:
                feed: Any = connection._transport._protocol.feed  # type: ignore[attr-defined]
                watching = asyncio.create_task(watch(feed))
                heard.extend([str(message) async for message in connection])
                watching.cancel()

        async def watch(feed: Any) -> None:
            before = 0
            while True:
                steps.append(feed.received - before)
                before = feed.received
                await asyncio.sleep(0)

        async with served(app, Protocol) as url, stubborn(url + "/") as client:
            await eventually(lambda: len(steps) > 1)
            messages = [str(number) for number in range(COUNT)]
            messages[COUNT // 2] = LARGE
            data = b"".join(masked(TEXT, one.encode()) for one in messages)
            client.writer.write(data + masked(CLOSE, b"\x03\xe8"))
            await eventually(lambda: client.ended, 30)
            await eventually(lambda: not pool.has_namespace("n"))
    assert heard == messages
    assert 1 < max(steps) <= FRAMES + LARGEST_PIECE // 7


@async_test
async def test_a_client_whose_endpoint_reads_late_is_held_up_within_its_bytes() -> None:
    """Bytes of a read for which there is no room are not parsed."""
    go_on = asyncio.Event()
    heard: list[str] = []
    limits = Limits(inbound_bytes=50_000, inbound_per_second=10**7)

    async with Backend(None).pools(timing=FAST, limits=limits) as (pool, _):
        app = FastAPI()

        @app.websocket("/")
        async def endpoint(websocket: WebSocket) -> None:
            async with pool.accept(websocket, namespace="n") as connection:
                async for message in connection:
                    heard.append(str(message))
                    if len(heard) == 1:
                        feeds.append(connection._transport._protocol)  # type: ignore[attr-defined]
                        await go_on.wait()

        feeds: list[Any] = []
        async with served(app, Protocol) as url, stubborn(url + "/") as client:
            client.say("first")
            await eventually(lambda: feeds)
            messages = [f"{number:020}" for number in range(10_000)]
            client.writer.write(b"".join(masked(TEXT, one.encode()) for one in messages))
            await eventually(lambda: feeds[0].full)
            await asyncio.sleep(0.1)
            assert feeds[0].feed._held <= 2 * 50_000
            go_on.set()
            await eventually(lambda: len(heard) == 10_001)
        assert heard[1:] == messages


async def watch(steps: list[int], heard: list[str]) -> None:
    """Note how many messages are heard in each turn of the loop."""
    before = 0
    while True:
        steps.append(len(heard) - before)
        before = len(heard)
        await asyncio.sleep(0)


def flood() -> bytes:
    """Many tiny messages, a large one among them, and a Close behind."""
    messages = [str(number) for number in range(COUNT)]
    messages[COUNT // 2] = LARGE
    return b"".join(masked(TEXT, one.encode()) for one in messages) + masked(CLOSE, b"\x03\xe8")


@async_test
async def test_a_flood_for_an_application_without_a_pool_is_read_in_turns() -> None:
    """Its loop goes on beside it: a queue that is never empty would let nothing else run."""
    heard: list[str] = []
    steps: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        watching = asyncio.create_task(watch(steps, heard))
        while (event := await receive())["type"] == "websocket.receive":
            heard.append(event["text"])
        watching.cancel()

    async with served(app, Protocol) as url, stubborn(url + "/") as client:
        client.writer.write(flood())
        await eventually(lambda: client.ended, 30)
    assert len(heard) == COUNT
    assert [one for one in heard if one != LARGE] == [
        str(number) for number in range(COUNT) if number != COUNT // 2
    ]
    assert 1 < max(steps) <= 2 * (FRAMES + LARGEST_PIECE // 7)


@async_test
async def test_a_flood_behind_a_middleware_that_wraps_receive_is_read_in_turns() -> None:
    """The pool then reads by ASGI, through that middleware."""
    heard: list[str] = []
    seen: list[str] = []
    steps: list[int] = []
    limits = Limits(inbound_bytes=2**25, inbound_per_second=10**7, message_bytes=2**22)

    async with Backend(None).pools(timing=FAST, limits=limits) as (pool, _):
        app = FastAPI()

        @app.websocket("/")
        async def endpoint(websocket: WebSocket) -> None:
            async with pool.accept(websocket, namespace="n") as connection:
                watching = asyncio.create_task(watch(steps, seen))
                heard.extend([str(message) async for message in connection])
                watching.cancel()

        async def wrapping(scope: Any, receive: Any, send: Any) -> None:
            async def seeing() -> Any:
                event = await receive()
                seen.append(event["type"])
                return event

            await app(scope, seeing, send)

        async with served(wrapping, Protocol) as url, stubborn(url + "/") as client:
            client.writer.write(flood())
            await eventually(lambda: client.ended, 30)
            await eventually(lambda: not pool.has_namespace("n"))
    assert len(heard) == COUNT
    assert 1 < max(steps) <= 2 * (FRAMES + LARGEST_PIECE // 7)


def inflating(count: int) -> bytes:
    """A large frame, behind which the pieces that are parsed were large, and many that grow."""
    packer = zlib.compressobj(9, wbits=-15)
    packed = (packer.compress(bytes(GROWN)) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    return masked(BINARY, os.urandom(28_000)) + count * client_frame(FIN | RSV1 | BINARY, packed)


@async_test
async def test_messages_that_grow_by_decompression_are_held_up_within_their_bytes() -> None:
    """A kilobyte becomes a megabyte: a piece of a read must not hold many of them."""
    feeds: list[Any] = []
    go_on = asyncio.Event()
    limits = Limits(inbound_bytes=GROWN, message_bytes=2 * GROWN)

    async with Backend(None).pools(timing=FAST, limits=limits) as (pool, _):
        app = FastAPI()

        @app.websocket("/")
        async def endpoint(websocket: WebSocket) -> None:
            async with pool.accept(websocket, namespace="n") as connection:
                async for _ in connection:
                    feeds.append(connection._transport._protocol)  # type: ignore[attr-defined]
                    await go_on.wait()

        async with served(app, CompressingProtocol) as url, connect(url + "/") as client:
            client.transport.write(inflating(60))
            await eventually(lambda: feeds and feeds[0].full)
            await asyncio.sleep(0.1)
            assert GROWN <= feeds[0].feed._held <= 3 * GROWN
            go_on.set()
            client.transport.abort()


@async_test
async def test_without_a_pool_as_few_messages_that_grow_wait_for_the_application() -> None:
    """It gets all of them."""
    waiting: list[int] = []
    protocols: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        protocols.append(scope["extensions"][EXTENSION])
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            waiting.append(protocols[0].queue.qsize())
            if event["bytes"] == b"last":
                await send({"type": "websocket.close"})

    async with served(app, CompressingProtocol) as url, connect(url + "/") as client:
        client.transport.write(inflating(60) + masked(BINARY, b"last"))
        await asyncio.wait_for(client.wait_closed(), 30)
    assert len(waiting) == 62
    assert max(waiting) <= 2 * FRAMES * INFLATED // GROWN
