"""Starlette and FastAPI behind a real uvicorn."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from fastapi import FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cluster_pool import (
    ClusterPool,
    ClusterPoolError,
    Connection,
    ConnectionsPool,
    Limits,
    SendResult,
)
from cluster_pool.testing import FAST
from tests.clusters import Backend
from tests.stubborn import stubborn
from tests.support import async_test, eventually
from tests.transports.served import QUIET, served

pytestmark = QUIET


@async_test
async def test_fastapi_with_a_local_pool() -> None:
    """The ordinary endpoint: accept, join, run, leave; text, binary, close and its code."""
    async with ConnectionsPool() as pool:
        app = FastAPI()
        told: list[tuple[int, str]] = []

        @app.websocket("/{id}")
        async def endpoint(websocket: WebSocket, id: str) -> None:
            await websocket.accept()
            connection = Connection(id, "n", websocket)
            connection.on("message", lambda message: connection.send(message))
            connection.on("close", lambda code, reason: told.append((code, reason)))
            await pool.new_connection(connection)
            try:
                await connection.run()
            finally:
                await pool.remove_connection(connection)

        async with served(app) as url, connect(f"{url}/a") as a, connect(f"{url}/b") as b:
            await a.send("echo")
            await a.send(b"\xff")
            assert await a.recv() == "echo"
            assert await a.recv() == b"\xff"
            assert await pool.broadcast_message("n", "all") == 2
            assert await a.recv() == "all"
            assert await b.recv() == "all"
            assert await pool.send_then_close("n", "b", "bye", 4000, "done")
            assert await b.recv() == "bye"
            await b.wait_closed()
            assert (b.close_code, b.close_reason) == (4000, "done")
            await a.close(3000, "leaving")
            await eventually(lambda: len(told) == 2)
            assert sorted(told) == [(3000, "leaving"), (4000, "done")]
            assert not pool.has_namespace("n")


@async_test
async def test_accept_claims_before_the_handshake_is_answered() -> None:
    """With a cluster, ``accept`` holds the claim for the body, and refuses a taken id."""
    backend = Backend(None)
    async with backend.pools(on_conflict="reject") as (one, two):

        async def endpoint(websocket: WebSocket) -> None:
            id = websocket.path_params["id"]
            with contextlib.suppress(ClusterPoolError):
                async with one.accept(websocket, namespace="n", id=id) as connection:
                    await connection.wait_closed()

        app = Starlette(routes=[WebSocketRoute("/{id}", endpoint)])
        async with served(app) as url:
            async with connect(f"{url}/alice") as alice:
                assert await two.send("n", "alice", "hi", confirm=True) is SendResult.DELIVERED
                assert await alice.recv() == "hi"
                with pytest.raises(InvalidStatus) as taken:
                    await connect(f"{url}/alice")
                assert taken.value.response.status_code == 409
                assert await two.count("n") == 1
            await eventually(lambda: not one.has_namespace("n"))
            assert await two.send("n", "alice", "hi") is SendResult.ABSENT
            await one.drain_connections()
            with pytest.raises(InvalidStatus) as draining:
                await connect(f"{url}/alice")
            assert draining.value.response.status_code == 503
            assert draining.value.response.headers["Retry-After"] == "1"


PATIENT = replace(FAST, close=10.0)
"""A loop that stands still for a second cuts no client."""

every_uvicorn = pytest.mark.parametrize(
    "ws", ["websockets", "websockets-sansio", "cluster_pool.uvicorn:Protocol"]
)


def endpoints(pool: ClusterPool, after: list[tuple[str, list[object]]]) -> Starlette:
    """An endpoint that records its messages and senders, and goes on after its loop."""

    async def endpoint(websocket: WebSocket) -> None:
        id = websocket.path_params["id"]
        got: list[object] = []
        async with pool.accept(websocket, namespace="n", id=id) as connection:
            got.extend([message async for message in connection])
        await asyncio.sleep(0.01)
        after.append((id, got))

    return Starlette(routes=[WebSocketRoute("/{id}", endpoint)])


@every_uvicorn
@async_test
async def test_the_endpoint_of_a_kicked_client_ends_at_once(ws: str) -> None:
    """It waits in ``receive`` of a client that ignores its Close and goes on sending."""
    after: list[tuple[str, list[object]]] = []
    async with (
        Backend(None).pools(timing=PATIENT) as (one, two),
        served(endpoints(one, after), ws) as url,
        stubborn(f"{url}/taken") as taken,
        stubborn(f"{url}/banned") as banned,
    ):
        await eventually(lambda: one.statistics()["connections"] == 2)
        for old in (taken, banned):
            old.say("hello")
        await asyncio.sleep(0.1)
        async with connect(f"{url}/taken") as new:
            await taken.told(4409)
            assert await two.send_then_close("n", "banned", "out", 4000, confirm=True)
            await banned.told(4000)
            for number in range(20):  # fewer than a server queues before it stops reading
                taken.say(str(number))
                banned.say(str(number))
            await eventually(lambda: len(after) == 2)
            assert sorted(after) == [("banned", ["hello"]), ("taken", ["hello"])]
            await new.send("me")
        await eventually(lambda: after[2:] == [("taken", ["me"])])
        assert one.statistics()["forced_closes"] == 0


@every_uvicorn
@pytest.mark.parametrize(("taken_over", "code"), [(True, 4409), (False, 4000)])
@async_test
async def test_a_client_closed_before_the_accept_gets_its_messages(
    ws: str, taken_over: bool, code: int
) -> None:
    """The handshake is answered, then come the held messages, then the close; no body runs."""
    after: list[tuple[str, list[object]]] = []
    async with (
        Backend(None).pools(timing=PATIENT) as (one, two),
        served(endpoints(one, after), ws) as url,
    ):
        admission = one._parts.admission
        claim = admission.join

        async def claim_and_more(connection: Connection, *options: Any) -> None:
            await claim(connection, *options)
            assert await two.send("n", "a", "first", confirm=True) is SendResult.DELIVERED
            if taken_over:
                await two.host("n", "a")
                await eventually(lambda: connection.closed)
            else:
                assert await two.send_then_close("n", "a", "x" * 100_000, 4000, confirm=True)

        admission.join = claim_and_more  # type: ignore[method-assign]
        async with connect(f"{url}/a") as client:
            assert await client.recv() == "first"
            if not taken_over:
                assert await client.recv() == "x" * 100_000
            await client.wait_closed()
            assert client.close_code == code
        assert after == []


@every_uvicorn
@pytest.mark.parametrize("fails", [False, True])
@async_test
async def test_a_client_gets_messages_sent_before_its_endpoint_returned(
    ws: str, fails: bool
) -> None:
    """It reads late, so the messages wait for the server: uvicorn cuts when the endpoint ends."""
    parts, results = [str(number) + "x" * 900_000 for number in range(8)], []

    async with Backend(None).pools(timing=PATIENT, limits=Limits(outbox_bytes=2**24)) as (one, _):

        async def endpoint(websocket: WebSocket) -> None:
            with contextlib.suppress(RuntimeError):
                async with one.accept(websocket, namespace="n") as connection:
                    results.extend([await connection.send(part) for part in parts])
                    if fails:
                        raise RuntimeError

        app = Starlette(routes=[WebSocketRoute("/", endpoint)])
        async with served(app, ws) as url, connect(url, compression=None, max_queue=1) as client:
            await eventually(lambda: len(results) == len(parts))
            await asyncio.sleep(0.3)
            assert [await client.recv() for _ in parts] == parts
            await client.wait_closed()
            assert client.close_code == (1011 if fails else 1000)
    assert results == [SendResult.DELIVERED] * len(parts)


@pytest.mark.filterwarnings("ignore:Using `httpx`")
def test_endpoints_run_under_the_test_client() -> None:
    """Starlette's own: echo, a refusal with its status, and an id that is free again."""
    pytest.importorskip("httpx")
    from starlette.testclient import TestClient, WebSocketDenialResponse

    pool = ClusterPool(FakeAsyncRedis(server=FakeServer()), on_conflict="reject", timing=FAST)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with pool:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.websocket("/echo/{id}")
    async def echo(websocket: WebSocket, id: str) -> None:
        async with pool.accept(websocket, namespace="n", id=id) as connection:
            async for message in connection:
                await connection.send(message)

    with TestClient(app) as client:
        with client.websocket_connect("/echo/alice") as alice:
            alice.send_text("hello")
            assert alice.receive_text() == "hello"
            for path, status in (("echo/alice", 409), ("echo/a{", 400)):
                with (
                    pytest.raises(WebSocketDenialResponse) as refused,
                    client.websocket_connect(f"/{path}"),
                ):
                    pass
                assert refused.value.status_code == status
        with client.websocket_connect("/echo/alice") as alice:
            alice.send_bytes(b"again")
            assert alice.receive_bytes() == b"again"


@async_test
async def test_handlers_of_the_application_do_not_answer_a_refusal_again() -> None:
    """For a status and a class, sync and async: the client has its answer; nothing is logged."""
    async with Backend(None).pools(on_conflict="reject") as (one, _):

        async def endpoint(websocket: WebSocket) -> None:
            async with one.accept(websocket, namespace="n", id=websocket.path_params["id"]):
                await asyncio.Event().wait()

        def answer(request: object, error: Exception) -> PlainTextResponse:
            raise AssertionError("it was answered")

        async def answer_later(request: object, error: Exception) -> PlainTextResponse:
            raise AssertionError("it was answered")

        app = Starlette(
            routes=[WebSocketRoute("/{id}", endpoint)],
            exception_handlers={409: answer, 400: answer_later, ClusterPoolError: answer},
        )
        async with served(app) as url, connect(f"{url}/alice"):
            for path, status in (("alice", 409), ("a%7B", 400)):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(f"{url}/{path}")
                assert refused.value.response.status_code == status


@async_test
async def test_a_connection_that_was_read_to_its_end_is_freed_without_the_collector() -> None:
    """A kept exception would hold the frames that it passed, and these the connection."""
    refs: list[weakref.ref[Connection]] = []

    async def endpoint(websocket: WebSocket) -> None:
        async with ClusterPool(redis=FakeAsyncRedis(server=FakeServer()), timing=FAST) as pool:
            async with pool.accept(websocket, namespace="n") as connection:
                refs.append(weakref.ref(connection))
                await connection.run()
            del connection
            freed.set_result(await eventually(lambda: refs[0]() is None, 5))

    freed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    gc.disable()
    try:
        app = Starlette(routes=[WebSocketRoute("/", endpoint)])
        async with served(app, "websockets-sansio") as url:
            async with connect(f"{url}/", proxy=None) as client:
                await client.send("hello")
            assert await freed
    finally:
        gc.enable()
