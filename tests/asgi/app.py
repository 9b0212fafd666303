"""A FastAPI app as the README writes it, with bodies of many kinds; every ASGI server runs it.

It says what its endpoints are doing at ``/state``, and stands for the pool's owner at ``/drain``.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, WebSocket

from cluster_pool import ClusterPool, Connection, Limits, NodeState, Timing
from cluster_pool.transports.base import Transport
from cluster_pool.transports.starlette_uvicorn import UvicornTransport

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")

pool = ClusterPool(
    os.environ["REDIS"],
    on_conflict=os.environ.get("ON_CONFLICT", "takeover"),
    limits=Limits(inbound_bytes=int(os.environ.get("INBOUND_BYTES", 2**20))),
    timing=Timing(close=float(os.environ.get("CLOSE", 1)), handler=float(os.environ.get("H", 2))),
)
open_endpoints: list[str] = []
ended: list[str] = []
app = FastAPI(lifespan=pool.lifespan)
app.mount("/ops", pool.operations("t0ken"))


async def started() -> None:
    """Start the pool where the server knows no lifespan (daphne)."""
    if pool.state is NodeState.STOPPED:
        await pool.start()


async def reads(connection: Connection, websocket: WebSocket) -> None:
    async for message in connection:
        await connection.send(message)


async def sink(connection: Connection, websocket: WebSocket) -> None:
    async for _ in connection:
        pass


async def pushes(connection: Connection, websocket: WebSocket) -> None:
    while True:
        await connection.send("tick")
        await asyncio.sleep(0.01)


async def floods(connection: Connection, websocket: WebSocket) -> None:
    while True:
        await connection.send("x" * 100_000)
        await asyncio.sleep(0.001)


async def waits(connection: Connection, websocket: WebSocket) -> None:
    await asyncio.Event().wait()


async def reads_once(connection: Connection, websocket: WebSocket) -> None:
    async for message in connection:
        await connection.send(message)
        break
    await asyncio.Event().wait()


async def reads_itself(connection: Connection, websocket: WebSocket) -> None:
    await connection.send(await websocket.receive_text())
    await asyncio.Event().wait()


async def reads_slowly(connection: Connection, websocket: WebSocket) -> None:
    async for _ in connection:
        await asyncio.sleep(0.5)


async def groups(connection: Connection, websocket: WebSocket) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(reads(connection, websocket))
        group.create_task(pushes(connection, websocket))


async def closes_itself(connection: Connection, websocket: WebSocket) -> None:
    await connection.close(4000)
    await asyncio.sleep(0.3)


BODIES: dict[str, Callable[[Connection, WebSocket], Awaitable[None]]] = {
    body.__name__: body
    for body in (
        *(reads, sink, pushes, floods, waits, reads_once, reads_itself, reads_slowly, groups),
        closes_itself,
    )
}


def transports() -> list[Transport]:
    """Those of the connections in the room."""
    found = [pool.get_connection("room", user) for user in open_endpoints]
    return [one._transport for one in found if one is not None]


@app.websocket("/ws/{kind}/{user}")
async def endpoint(websocket: WebSocket, kind: str, user: str) -> None:
    open_endpoints.append(user)
    behind = False
    try:
        async with pool.accept(websocket, namespace="room", id=user) as connection:
            await BODIES[kind](connection, websocket)
            behind = True
        ended.append(f"{user} {'by itself' if behind else 'ended'}")
    finally:
        open_endpoints.remove(user)


@app.websocket("/{room}/{user}")
async def readme(websocket: WebSocket, room: str, user: str) -> None:
    async with pool.accept(websocket, namespace=room, id=user) as connection:
        async for message in connection:
            await pool.broadcast_message(room, f"{user}: {message}", exclude=[user])


@app.get("/state")
async def state() -> dict[str, Any]:
    await started()
    return {
        "open": open_endpoints,
        "ended": ended,
        "members": [member.id async for member in pool.members("room")] if pool.ready else [],
        "tasks": len(asyncio.all_tasks()),
        "direct": sum(isinstance(one, UvicornTransport) for one in transports()),
        **pool.statistics(),
    }


@app.get("/drain")
async def drain() -> None:
    await pool.drain_connections(grace=0.5)


@app.get("/close/{user}")
async def close(user: str) -> str:
    return (await pool.close("room", user, 4001)).value


@app.get("/send/{user}")
async def send(user: str) -> str:
    return (await pool.send("room", user, "hello", confirm=True)).value
