"""``pool.lifespan``: start, drain on a signal, stop; by itself and inside applications.

:mod:`tests.asgi.test_lifespan` has the same on real servers.
"""

import asyncio
import contextlib
import functools
import os
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, WebSocket

from cluster_pool import BackplaneUnavailableError, ClusterPool, NodeState, Stopping
from cluster_pool.testing import FAST
from tests.cluster.test_taking_signals import BOTH, TERM, on_loop
from tests.clusters import Backend
from tests.drains import join
from tests.support import async_test, eventually, run_alone

pytest.importorskip("httpx")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the next HTTP client that it will use
    from fastapi.testclient import TestClient
    from starlette.testclient import WebSocketDenialResponse


def made(prefix: str = "cluster_pool") -> ClusterPool:
    """A pool that is not started, on a fakeredis of its own."""
    return ClusterPool(Backend(None).redis(), prefix=prefix, timing=FAST)


def endpoint_of(pool: ClusterPool) -> Any:
    """A function for a WebSocket of FastAPI that tells everybody in the room."""

    async def endpoint(websocket: WebSocket, user: str) -> None:
        async with pool.accept(websocket, namespace="room", id=user) as connection:
            async for message in connection:
                await pool.broadcast_message("room", f"{user}: {message}")

    return endpoint


def test_it_starts_and_stops_a_pool_in_one_loop_after_another() -> None:
    """A server in a thread, or the next test client, has a loop of its own."""
    pool = made()

    async def live() -> None:
        async with pool.lifespan():
            assert pool.ready
        assert pool.state is NodeState.STOPPED

    for _ in range(2):
        run_alone(live(), asyncio.new_event_loop)


@BOTH
def test_a_signal_drains_before_the_server_hears_of_it(loop: str) -> None:
    """Its handler would close every socket. The end of the lifespan then stops the pool."""

    async def test(told: list[int]) -> None:
        pool, stopping = made(), Stopping(40.0, 20.0, announce=0.0)
        async with pool.lifespan(None, stopping=stopping):
            sockets = await join(pool, 4)
            os.kill(os.getpid(), TERM)
            await eventually(lambda: any(one.closed for one in sockets))
            assert told == []
            await eventually(lambda: told == [TERM])
            assert {one.closed and one.closed[0] for one in sockets} == {1012}
            assert pool.state is NodeState.DRAINED
        assert pool.state is NodeState.STOPPED

    on_loop(loop, test)


@async_test
async def test_an_error_of_the_application_stops_the_pool() -> None:
    """The server then ends; nothing of the node stays."""
    pool = made()
    with pytest.raises(ZeroDivisionError):
        async with pool.lifespan():
            raise ZeroDivisionError
    assert pool.state is NodeState.STOPPED


@async_test
async def test_without_redis_it_raises_at_once_or_after_the_wait() -> None:
    """So that the server does not start."""
    pool = ClusterPool("redis://127.0.0.1:1", timing=FAST)
    began = asyncio.get_running_loop().time()
    for wait in (None, 0.3):
        with pytest.raises(BackplaneUnavailableError):
            async with pool.lifespan(wait=wait):
                pytest.fail("it is not up")
    assert asyncio.get_running_loop().time() - began >= 0.3
    assert pool.state is NodeState.STOPPED


def test_an_application_runs_under_a_test_client() -> None:
    """Outside the main thread, where no signal can be caught."""
    pool = made()
    app = FastAPI(lifespan=pool.lifespan)
    app.websocket("/{user}")(endpoint_of(pool))
    with TestClient(app) as client, client.websocket_connect("/alice") as alice:
        alice.send_text("hello")
        assert alice.receive_text() == "alice: hello"
    assert pool.state is NodeState.STOPPED


def test_without_its_lifespan_an_application_refuses_every_client() -> None:
    """A test client that is not entered runs none; so does daphne."""
    pool = made()
    app = FastAPI(lifespan=pool.lifespan)
    app.websocket("/{user}")(endpoint_of(pool))
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        TestClient(app).websocket_connect("/alice"),
    ):
        pytest.fail("it was accepted")
    assert refused.value.status_code == 503
    assert refused.value.headers["Retry-After"] == "1"


def test_an_application_has_its_own_lifespan_around_two_pools() -> None:
    """Its own resources are open until both have stopped."""
    one, two = made(), made()
    during: list[NodeState] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with one.lifespan(app), two.lifespan(app, stopping=Stopping(grace=3)):
            yield {"opened": True}
        during.extend((one.state, two.state))

    app = FastAPI(lifespan=lifespan)
    app.websocket("/one/{user}")(endpoint_of(one))
    app.websocket("/two/{user}")(endpoint_of(two))
    with TestClient(app) as client:
        for path in ("/one/alice", "/two/bob"):
            with client.websocket_connect(path) as socket:
                socket.send_text("hello")
                assert socket.receive_text().endswith(": hello")
        assert client.app_state == {"opened": True}
    assert during == [NodeState.STOPPED] * 2


def test_a_router_brings_a_pool_and_a_mounted_application_uses_that_of_its_parent() -> None:
    """FastAPI runs the lifespan of a router that it includes, and none of a mounted one."""
    one, two = made(), made()
    router = APIRouter(lifespan=functools.partial(two.lifespan, stopping=Stopping(grace=3)))
    router.websocket("/two/{user}")(endpoint_of(two))
    mounted = FastAPI()
    mounted.websocket("/{user}")(endpoint_of(one))
    app = FastAPI(lifespan=one.lifespan)
    app.include_router(router)
    app.mount("/one", mounted)
    with TestClient(app) as client:
        for path in ("/one/alice", "/two/bob"):
            with client.websocket_connect(path) as socket:
                socket.send_text("hello")
                assert socket.receive_text().endswith(": hello")
    assert {one.state, two.state} == {NodeState.STOPPED}
