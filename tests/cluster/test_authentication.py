"""``accept`` with ``auth=``: real servers, real clients, tokens in each place."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cluster_pool import (
    Auth,
    AuthenticationError,
    ClusterPoolError,
    Identity,
    Jwt,
    NotPermittedError,
)
from cluster_pool.testing import FakeWebSocket
from tests.auth.signing import SECRET, token
from tests.clusters import Backend, Pool
from tests.support import async_test, eventually

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # uvicorn's own imports
    pytest.mark.filterwarnings("ignore:The `websockets` implementation is deprecated"),
]

AUTH = Auth(authenticate=Jwt(secret=SECRET, cookie="session"))


async def tell(pool: Pool, websocket: Any, id: str | None, **options: Any) -> None:
    """An endpoint that says what it knows of its client, and takes new tokens."""
    with contextlib.suppress(ClusterPoolError):
        async with pool.accept(websocket, namespace="n", id=id, **options) as connection:
            await connection.send_json([connection.id, connection.user, connection.expires])
            async for message in connection:
                try:
                    await connection.renew(str(message))
                    await connection.send_json(connection.expires)
                except AuthenticationError as error:
                    await connection.send(str(error))


@contextlib.asynccontextmanager
async def on_uvicorn(pool: Pool, **options: Any) -> AsyncIterator[str]:
    """The endpoint in FastAPI; its URL."""
    app = FastAPI()

    @app.websocket("/{id}")
    async def endpoint(websocket: WebSocket, id: str) -> None:
        await tell(pool, websocket, id, **options)

    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", ws="websockets-sansio"
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    try:
        yield f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def on_websockets(pool: Pool, **options: Any) -> AsyncIterator[str]:
    """The endpoint behind the library alone; its URL."""

    async def handler(websocket: ServerConnection) -> None:
        assert websocket.request is not None
        id = websocket.request.path.strip("/").partition("?")[0]
        await tell(pool, websocket, id, **options)

    async with serve(handler, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


SERVERS = pytest.mark.parametrize("served", [on_uvicorn, on_websockets], ids=["uvicorn", "alone"])


async def status(url: str, **options: Any) -> int:
    """The status of a refused handshake, or 101."""
    try:
        async with connect(url, **options) as client:
            try:
                await asyncio.wait_for(client.recv(), 20)
            except ConnectionClosed as closed:  # answered before accept() could refuse
                return closed.rcvd.code if closed.rcvd else 0
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


@SERVERS
@async_test
async def test_a_client_shows_its_token_in_any_of_four_places(served: Any) -> None:
    text = token(sub="42", id="alice")
    async with Backend(None).pools(1, auth=AUTH) as (pool,), served(pool) as url:
        for options in (
            {"uri": f"{url}/alice?token={text}"},
            {"uri": f"{url}/alice", "additional_headers": {"Authorization": f"Bearer {text}"}},
            {"uri": f"{url}/alice", "additional_headers": {"Cookie": f"session={text}"}},
            {
                "uri": f"{url}/alice",
                "subprotocols": [f"cluster-pool.token.{text}", "cluster-pool.raw"],
            },
        ):
            async with connect(**options) as client:
                id, user, expires = json.loads(await client.recv())
                assert (id, user) == ("alice", "42")
                assert expires > time.time()
                if served is on_uvicorn:
                    answered = "cluster-pool.raw" if "subprotocols" in options else None
                    assert client.subprotocol == answered


@async_test
async def test_a_stranger_claims_nothing() -> None:
    """401, 403 and 400; an id is not taken from its owner by a client without a token."""
    text = token(id="alice", namespaces=["n"])
    async with (
        Backend(None).pools(1, auth=AUTH) as (pool,),
        on_uvicorn(pool) as url,
        connect(f"{url}/alice?token={text}") as alice,
    ):
        await alice.recv()
        expired, other = token(exp=int(time.time()) - 60), token(namespaces=["m"])
        assert await status(f"{url}/alice") == 401
        assert await status(f"{url}/alice?token=x") == 401
        assert await status(f"{url}/alice?token={expired}") == 401
        assert await status(f"{url}/bob?token={text}") == 403
        assert await status(f"{url}/alice?token={other}") == 403
        alone = [f"cluster-pool.token.{text}"]
        assert await status(f"{url}/alice", subprotocols=alone) == 400
        assert await status(f"{url}/alice?token={text}", origin="https://evil.example") == 403
        statistics = pool.statistics()
        names = ("unauthenticated", "not_permitted", "unverified", "origins_refused", "taken_over")
        assert [statistics[name] for name in names] == [3, 2, 0, 1, 0]
        assert await pool.send("n", "alice", "still?", confirm=True)


@SERVERS
@async_test
async def test_refusals_reach_clients_of_every_server(served: Any) -> None:
    """With an HTTP status where the handshake is not answered yet, else with a close code."""

    def fails(request: Any) -> None:
        raise OSError("the database is away")

    expected = {on_uvicorn: (401, 503), on_websockets: (4401, 1013)}[served]
    async with Backend(None).pools(1) as (pool,):
        async with served(pool, auth=AUTH) as url:
            assert await status(f"{url}/alice") == expected[0]
        async with served(pool, auth=Auth(authenticate=fails)) as url:
            assert await status(f"{url}/alice") == expected[1]
        assert pool.statistics()["connections"] == 0
        assert pool.statistics()["unverified"] == 1


@async_test
async def test_the_origins_of_auth_stand_in_place_of_the_pools() -> None:
    auth = Auth(authenticate=Jwt(secret=SECRET), origins=["https://app.example"])
    async with Backend(None).pools(1, auth=auth) as (pool,), on_uvicorn(pool) as url:
        named = f"{url}/alice?token={token()}"
        assert await status(named, origin="https://app.example") == 101
        assert await status(named, origin="https://evil.example") == 403


@SERVERS
@async_test
async def test_at_expiry_a_client_is_closed_with_4401_unless_it_renews(served: Any) -> None:
    soon = token(exp=int(time.time()) + 2)
    auth = Auth(authenticate=Jwt(secret=SECRET, leeway=0.001))
    async with (
        Backend(None).pools(1, auth=auth) as (pool,),
        served(pool) as url,
        connect(f"{url}/alice?token={soon}") as alice,
        connect(f"{url}/bob?token={soon}") as bob,
    ):
        await alice.recv()
        await bob.recv()
        await alice.send(token(sub="43"))
        assert "another user" in str(await alice.recv())
        await alice.send(token())
        assert json.loads(await alice.recv()) > time.time() + 30
        with pytest.raises(ConnectionClosed) as ended:
            await bob.recv()
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == 4401
        assert await pool.send("n", "alice", "still?", confirm=True)
        assert not await pool.send("n", "bob", "gone", confirm=True)


@async_test
async def test_an_application_may_bring_the_identity_itself() -> None:
    async with Backend(None).pools(1, auth=AUTH) as (pool,):
        own = Identity(user="7", id="tab", namespace="app")
        async with pool.accept(FakeWebSocket(), identity=own) as connection:
            assert (connection.namespace, connection.id, connection.user) == ("app", "tab", "7")
            assert connection.identity is own
        with pytest.raises(NotPermittedError):
            async with pool.accept(FakeWebSocket(), namespace="other", identity=own):
                pass
        with pytest.raises(TypeError, match="not both"):
            pool.accept(FakeWebSocket(), namespace="n", identity=own, auth=AUTH)


@async_test
async def test_an_identity_that_has_expired_is_refused_before_anything_is_claimed() -> None:
    """One that the application brings, too."""
    late = Identity(user="42", namespace="n", expires=time.time() - 1)
    async with Backend(None).pools(1) as (pool,):
        websocket = FakeWebSocket()
        with pytest.raises(AuthenticationError, match="expired"):
            async with pool.accept(websocket, id="a", identity=late):
                pytest.fail("it must not be accepted")
        assert pool.statistics()["unauthenticated"] == 1
        assert pool.statistics()["accepted"] == 0


@async_test
async def test_without_authentication_a_namespace_must_be_named() -> None:
    async with Backend(None).pools(1) as (pool,):
        with pytest.raises(TypeError, match="needs a namespace"):
            pool.accept(FakeWebSocket())
        async with pool.accept(FakeWebSocket(), namespace="n") as connection:
            assert (connection.identity, connection.user, connection.expires) == (None, None, None)
