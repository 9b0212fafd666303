"""``accept``, ``local``, ``watch`` and the hooks of a pool."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from cluster_pool import (
    Auth,
    AuthenticationError,
    ClusterPoolError,
    Connection,
    Identity,
    IdTakenError,
    InvalidValueError,
    MemberEvent,
    NodeState,
    OriginRefusedError,
    Request,
    SendResult,
)
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend, Pool
from tests.support import async_test, eventually
from tools.harness.nodes import close_code


@contextlib.asynccontextmanager
async def endpoint(pool: Pool) -> AsyncIterator[str]:
    """A server of the ``websockets`` library around ``pool.accept``; gives its URL."""

    async def handler(websocket: ServerConnection) -> None:
        assert websocket.request is not None
        id = websocket.request.path.strip("/") or None
        with contextlib.suppress(IdTakenError, RuntimeError):
            async with pool.accept(websocket, namespace="n", id=id) as connection:
                async for message in connection:
                    if message == "fail":
                        raise RuntimeError("on purpose")
                    if message == "leave":
                        return

    async with serve(handler, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


@async_test
async def test_accept_is_the_whole_life_of_a_member() -> None:
    """Claimed before the body, closed and released after it: 1000, or 1011 after an exception."""
    backend = Backend(None)
    async with backend.pools(on_conflict="reject") as (one, two), endpoint(one) as url:
        for last, code in (("leave", 1000), ("fail", 1011)):
            async with connect(f"{url}/alice") as alice:
                await eventually(lambda: one.get_connection("n", "alice"))
                assert await two.send("n", "alice", "hi", confirm=True) is SendResult.DELIVERED
                assert await alice.recv() == "hi"
                async with connect(f"{url}/alice") as second:
                    assert await close_code(second) == 4409
                await alice.send(last)
                assert await close_code(alice) == code
            await eventually(lambda: not one.has_namespace("n"))
            assert await two.count("n") == 0


@async_test
async def test_accept_makes_an_id_for_a_client_without_one() -> None:
    """Two clients without an id are two members."""
    backend = Backend(None)
    async with backend.pools(1) as (one,), endpoint(one) as url, connect(url), connect(url):
        await eventually(lambda: one.statistics()["connections"] == 2)


@async_test
async def test_a_pair_of_callables_is_accepted_with_the_request_of_its_client() -> None:
    """Its origin and its client are checked by it, and one that is refused is closed."""

    async def by_token(request: Request) -> Identity | None:
        return Identity(user="alice") if request.query.get("token") == "t" else None

    lines = "Host: app.example\nOrigin: "
    page, foreign = f"{lines}https://app.example", f"{lines}https://evil.example"
    cases = (
        (Request("/ws", "token=t", foreign), OriginRefusedError, 1008),
        (Request("/ws", "token=x", page), AuthenticationError, 4401),
    )
    async with Backend(None).pools(1) as (one,):
        for request, error, code in cases:
            refused = FakeWebSocket()
            with pytest.raises(error):
                async with one.accept(
                    (refused.send, refused.close),
                    request=request,
                    namespace="n",
                    auth=Auth(authenticate=by_token),
                ):
                    pytest.fail("it was accepted")
            assert refused.closed
            assert refused.closed[0] == code
        accepted, request = FakeWebSocket(), Request("/ws", "token=t", page, "10.0.0.1")
        async with one.accept(
            (accepted.send, accepted.close),
            request=request,
            namespace="n",
            auth=Auth(authenticate=by_token),
        ) as connection:
            assert (connection.user, connection.request) == ("alice", request)
            await connection.send("hello")
        assert accepted.sent == ["hello"]
        assert accepted.closed
        assert accepted.closed[0] == 1000


@async_test
async def test_local_sends_without_the_cluster_and_leaves_membership_to_it() -> None:
    """``pool.local`` reaches this node's members only, and refuses to add or remove."""
    backend = Backend(None)
    async with backend.pools() as (one, two):
        alice, bob = await one.host("n", "alice"), await two.host("n", "bob")
        assert await one.local.broadcast_message("n", "here") == 1
        assert await one.local.send("n", "bob", "x") is SendResult.ABSENT
        assert await alice.wait_sent() == ["here"]
        assert bob.sent == []
        for call in (one.local.new_connection, one.local.remove_connection):
            with pytest.raises(ClusterPoolError, match="belongs to the ClusterPool"):
                await call(Connection("x", "n", FakeWebSocket()))


@async_test
async def test_watch_iterates_over_events() -> None:
    """Joins and leaves come as they happen; leaving the loop ends the subscription."""
    backend = Backend(None)
    async with backend.pools() as (one, two):
        seen: list[MemberEvent] = []
        note = seen.append

        async def follow() -> None:
            async for event in one.watch("n"):
                note(event)

        task = asyncio.create_task(follow())
        await eventually(lambda: one._parts.backplane.shard.listens(one._setup.keys.events("n")))
        bob = await two.host("n", "bob")
        await two.remove_connection(bob.connection)
        await eventually(lambda: len(seen) == 2)
        assert seen == [MemberEvent("join", "bob", "node-2"), MemberEvent("leave", "bob", "node-2")]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await eventually(
            lambda: not one._parts.backplane.shard.listens(one._setup.keys.events("n"))
        )


@async_test
async def test_hooks_are_called_and_their_faults_stay_theirs() -> None:
    """The states of a node come in order, to sync and async handlers; a failing one is counted."""
    backend = Backend(None)
    pool = Pool(backend.redis(), node_id="a")
    states: list[NodeState] = []
    later: list[NodeState] = []

    async def note(state: NodeState) -> None:
        await asyncio.sleep(0)
        later.append(state)

    def fail(state: NodeState) -> None:
        raise RuntimeError("on purpose")

    for handler in (states.append, note, fail):
        pool.on("state", handler)
    with pytest.raises(InvalidValueError, match="no event 'nonsense'"):
        pool.on("nonsense", print)
    async with pool:
        await pool.drain_connections(force=True)
        await eventually(lambda: len(later) == 4)
    assert [state.value for state in states] == [
        "starting",
        "active",
        "draining",
        "drained",
        "stopped",
    ]
    assert pool.statistics()["handler_errors"] == 5


@async_test
async def test_namespaces_that_come_and_go_leave_nothing_behind() -> None:
    """A node that has seen many namespaces keeps no data of them once they are empty."""
    backend = Backend(None)
    async with backend.pools(1) as (one,):
        for at in range(50):
            alice = await one.host(f"user:{at}", "tab")
            await one.broadcast_message(f"user:{at}", "x")
            await one.send(f"user:{at}", "tab", "y")
            assert await alice.wait_sent(2) == ["x", "y"]
            await one.remove_connection(alice.connection)
        await eventually(lambda: not one._parts.ownership._namespaces._held)
        assert not one._parts.backplane.outbound._queues
        assert not one._parts.ownership._pending
        own = {one._setup.keys.node_channel("node-1"), backend.routed_channel("", one)}
        assert set(one._parts.backplane.progress._at) <= own
        assert set(one._parts.backplane.shard.subscriptions._users) == own
        assert set(one._parts.backplane.shard.receiver.numbers._last) == own
        assert one._parts.table.namespaces() == []
