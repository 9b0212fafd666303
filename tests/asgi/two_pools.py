"""A FastAPI application as larger ones are: two pools, a lifespan of its own, a mounted part."""

import contextlib
import logging
import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, WebSocket

from cluster_pool import ClusterPool, Stopping

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")

chat = ClusterPool(os.environ["REDIS"], prefix="cluster_pool:chat")
news = ClusterPool(os.environ["REDIS"], prefix="cluster_pool:news")
stopping = Stopping(float(os.environ["RATE"]), float(os.environ["GRACE"]), announce=0)


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with chat.lifespan(app, stopping=stopping), news.lifespan(app, stopping=stopping):
        yield
    print(f"closed behind {chat.state.value} and {news.state.value}", flush=True)


def get_chat() -> ClusterPool:
    return chat


app = FastAPI(lifespan=lifespan)
mounted = FastAPI()
app.mount("/news", mounted)


async def echo(pool: ClusterPool, websocket: WebSocket, user: str) -> None:
    async with pool.accept(websocket, namespace="room", id=user) as connection:
        async for message in connection:
            await connection.send(f"{os.getpid()} {message!s}")


@app.websocket("/chat/{user}")
async def in_chat(
    websocket: WebSocket, user: str, pool: Annotated[ClusterPool, Depends(get_chat)]
) -> None:
    await echo(pool, websocket, user)


@mounted.websocket("/{user}")
async def in_news(websocket: WebSocket, user: str) -> None:
    await echo(news, websocket, user)


@app.get("/state")
async def state() -> dict[str, Any]:
    return {"ready": chat.ready and news.ready, "pid": os.getpid()}
