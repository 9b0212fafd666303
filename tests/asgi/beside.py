"""A FastAPI app whose endpoints use the framework's own methods beside the pool's, in odd ways.

A middleware that wraps ``receive`` is around it if the environment has WRAPPED.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, WebSocket
from starlette.middleware import Middleware

from cluster_pool import ClusterPool, Connection, Limits, Timing

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")

Event = MutableMapping[str, Any]
COUNT = 300
BIG = 4 * 1024 * 1024

pool = ClusterPool(
    os.environ["REDIS"],
    limits=Limits(message_bytes=BIG, outbox_bytes=int(os.environ.get("OUTBOX", 4 * BIG))),
    timing=Timing(close=float(os.environ.get("CLOSE", 1)), handler=2),
)
open_endpoints: list[str] = []
delivered: dict[str, int] = {}
heard: dict[str, list[str]] = {}


class Wrapped:
    """A middleware that wraps ``receive``."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def received() -> Event:
            event: Event = await receive()
            return event

        await self.app(scope, received, send)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with pool, pool.drain_on_signal():
        yield


app = FastAPI(
    lifespan=lifespan, middleware=[Middleware(Wrapped)] if "WRAPPED" in os.environ else []
)


async def mixes(connection: Connection, websocket: WebSocket) -> None:
    """Every second message goes the framework's way; so does the close behind a last one."""
    for number in range(0, COUNT, 2):
        await connection.send(str(number))
        await websocket.send_text(str(number + 1))
    await connection.send("last")
    await websocket.close(1001)


async def pumped(connection: Connection, websocket: WebSocket) -> None:
    """A message is in the outbox at nearly every moment."""
    delivered[connection.id] = 0
    while await pool.send("room", connection.id, str(delivered[connection.id])):
        delivered[connection.id] += 1
        await asyncio.sleep(0)


async def sends_large(connection: Connection, websocket: WebSocket) -> None:
    """A large message the framework's way, and small ones of the pool meanwhile."""
    sending = asyncio.create_task(websocket.send_text("x" * 2 * BIG))
    while not sending.done():
        await connection.send("small")
        await asyncio.sleep(0.01)
    await websocket.send_text("x" * 2 * BIG)
    for _ in range(10):
        await connection.send("small")
        await asyncio.sleep(0.01)
    await connection.send("last")
    await connection.wait_closed()


async def sink(connection: Connection, websocket: WebSocket) -> None:
    async for message in connection:
        heard.setdefault(connection.id, []).append(str(message))


async def waits(connection: Connection, websocket: WebSocket) -> None:
    await asyncio.Event().wait()


async def chokes(connection: Connection, websocket: WebSocket) -> None:
    """The framework's own sends fill the socket; the pool sends nothing."""
    while True:
        await websocket.send_text("x" * 1_000_000)


async def floods(connection: Connection, websocket: WebSocket) -> None:
    while True:
        await connection.send("x" * 1_000_000)
        await asyncio.sleep(0.001)


async def leaves_a_reader(connection: Connection, websocket: WebSocket) -> None:
    """A task still reads when the context ends."""
    readers.append(asyncio.create_task(sink(connection, websocket)))
    await asyncio.sleep(0.2)


readers: list[asyncio.Task[Any]] = []
BODIES: dict[str, Callable[[Connection, WebSocket], Awaitable[None]]] = {
    body.__name__: body
    for body in (mixes, pumped, sends_large, sink, waits, chokes, floods, leaves_a_reader)
}


@asynccontextmanager
async def noted(user: str) -> AsyncIterator[None]:
    open_endpoints.append(user)
    try:
        yield
    finally:
        open_endpoints.remove(user)


@app.websocket("/ws/{kind}/{user}")
async def accepted(websocket: WebSocket, kind: str, user: str) -> None:
    async with noted(user), pool.accept(websocket, namespace="room", id=user) as connection:
        await BODIES[kind](connection, websocket)


@app.websocket("/made/{kind}/{user}")
async def made(websocket: WebSocket, kind: str, user: str) -> None:
    """Without the context of ``accept``."""
    async with noted(user):
        await websocket.accept()
        connection = Connection(user, "room", websocket)
        await pool.new_connection(connection)
        try:
            await BODIES[kind](connection, websocket)
            await connection.wait_closed()
        finally:
            await pool.remove_connection(connection)


@app.websocket("/nested/{user}")
async def nested(websocket: WebSocket, user: str) -> None:
    """Two connections of one WebSocket."""
    async with (
        noted(user),
        pool.accept(websocket, namespace="one", id=user) as connection,
        pool.accept(websocket, namespace="two", id=user),
    ):
        async for message in connection:
            for number in range(int(message)):
                for namespace in ("one", "two"):
                    await pool.send(namespace, user, f"{namespace}{number:06}".ljust(BIG, "."))
                await written(connection)


async def written(connection: Connection) -> None:
    """Wait until the socket has taken everything, so that the next write begins at it."""
    await asyncio.sleep(0.001)
    while connection._writer.buffered():  # noqa: ASYNC110  # nothing tells that
        await asyncio.sleep(0.001)


@app.websocket("/plain/{user}")
async def plain(websocket: WebSocket, user: str) -> None:
    """Without the pool; it sends until its client does not read, and reads."""
    async with noted(user):
        await websocket.accept()
        sending = asyncio.create_task(websocket.send_text("x" * 20_000_000))
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass
        await asyncio.wait((sending,), timeout=0.1)


@app.websocket("/late/{user}")
async def late(websocket: WebSocket, user: str) -> None:
    """The end of the client was read before the pool is asked."""
    async with noted(user):
        await websocket.accept()
        await websocket.receive()
        await asyncio.sleep(0.1)
        async with pool.accept(websocket, namespace="room", id=user) as connection:
            await sink(connection, websocket)


@app.websocket("/hesitates/{way}/{user}")
async def hesitates(websocket: WebSocket, way: str, user: str) -> None:
    """The request is answered late; then it reads, with the pool or without."""
    async with noted(user):
        await asyncio.sleep(0.5)
        if way == "pool":
            async with pool.accept(websocket, namespace="room", id=user) as connection:
                await sink(connection, websocket)
        else:
            await websocket.accept()
            heard[user] = [message async for message in websocket.iter_text()]


@app.websocket("/reads_before/{user}")
async def reads_before(websocket: WebSocket, user: str) -> None:
    """A task waits for the first message before the pool is asked."""
    async with noted(user):
        await websocket.accept()
        reading = asyncio.create_task(websocket.receive_text())
        await asyncio.sleep(0)
        async with pool.accept(websocket, namespace="room", id=user) as connection:
            heard[user] = [await reading]
            await sink(connection, websocket)


@app.get("/state")
async def state() -> dict[str, Any]:
    return {
        "open": open_endpoints,
        "pumped": delivered,
        "said": heard,
        "readers": sum(not reader.done() for reader in readers),
        "members": [member.id async for member in pool.members("room")] if pool.ready else [],
        **pool.statistics(),
    }


@app.get("/close/{user}")
async def close(user: str) -> None:
    """As an endpoint that closes its own connection, from another task."""
    connection = pool.get_connection("room", user)
    assert connection is not None
    await connection.close(4000)
