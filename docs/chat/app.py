"""A chat: rooms, who is there and types, messages to a person, login by a token, kick."""

import asyncio
import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

import jwt
from fastapi import FastAPI, WebSocket
from fastapi.responses import FileResponse

from cluster_pool import Auth, ClusterPool, Connection, ConnectionClosedError, Jwt, Presence

REDIS = os.environ.get("CHAT_REDIS", "redis://localhost:6379")
SECRET = os.environ["CHAT_SECRET"]  # 32 characters or more, the same for every worker
pool = ClusterPool(REDIS, auth=Auth(authenticate=Jwt(secret=SECRET)))
app = FastAPI(lifespan=pool.lifespan)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("index.html"))


@app.post("/login")
async def login(name: str) -> str:
    """A token for that name; your application asks for a password, too."""
    return jwt.encode({"sub": name, "exp": time.time() + 3600}, SECRET, algorithm="HS256")


@app.websocket("/ws/{room}")
async def chat(websocket: WebSocket, room: str) -> None:
    async with (
        pool.accept(websocket, namespace=room, subprotocol="cluster-pool.raw") as tab,
        pool.presence(room, every=0.5) as presence,
    ):
        telling = asyncio.create_task(tell(tab, presence))
        try:
            async for message in tab:
                await obey(tab, json.loads(message))
        finally:
            telling.cancel()


async def tell(tab: Connection, presence: Presence) -> None:
    """Who is there, and types: now, and after each change. A person has one line for all tabs."""
    with contextlib.suppress(ConnectionClosedError):
        while True:
            people: dict[str | None, bool] = {}
            for one in presence.members.values():
                people[one.user] = people.get(one.user, False) or one.info == "types"
            await tab.send_json({"people": people})
            await anext(presence)


async def obey(tab: Connection, order: dict[str, Any]) -> None:
    """What a tab asks for: {"say"}, {"say", "to"}, {"typing"} or {"kick"}."""
    name = tab.user
    match order:
        case {"say": str(text), "to": str(user)}:
            message = json.dumps({"from": name, "to": user, "text": text})
            told = await pool.send_user(user, message, confirm=True)
            await tab.send_json({"note": f"{told.delivered} tabs of {user} have got: {text}"})
        case {"say": str(text)}:
            await pool.broadcast_json_message(tab.namespace, {"from": name, "text": text})
        case {"typing": bool(typing)}:
            await tab.update_info("types" if typing else None)
        case {"kick": str(user)} if name == "admin":
            await pool.close_user(user, 4403, "kicked")


app.mount("/", pool.operations())  # /healthz and /readyz, for the load balancer
