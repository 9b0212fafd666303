"""An application for the conformance cases: it echoes by the pool, and takes large messages."""

import os

from fastapi import FastAPI, WebSocket

from cluster_pool import ClusterPool, Limits

LARGEST = 32 * 1024 * 1024
limits = Limits(
    message_bytes=LARGEST, outbox_bytes=LARGEST, inbound_bytes=LARGEST, inbound_per_second=100_000
)
pool = ClusterPool(os.environ["REDIS"], limits=limits)


app = FastAPI(lifespan=pool.lifespan)


@app.websocket("/")
async def echo(websocket: WebSocket) -> None:
    async with pool.accept(websocket, namespace="n") as connection:
        async for message in connection:
            await connection.send(message)


@app.get("/state")
async def state() -> dict[str, bool]:
    return {"ready": pool.ready}
