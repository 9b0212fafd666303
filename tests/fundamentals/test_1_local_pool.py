"""1. One process: connections in a pool, without Redis.

A *connection* is one client's WebSocket. It has an *id* and belongs to a *namespace*. A *pool*
holds connections and finds them by namespace and id. ``ConnectionsPool`` is the pool of one
process; the pool of a cluster, which comes next, has the same methods.
"""

from cluster_pool import Connection, ConnectionsPool, SendResult
from cluster_pool.testing import FakeWebSocket


async def test_a_connection_is_found_by_namespace_and_id() -> None:
    """A message reaches the one connection that it is for."""
    # The WebSocket comes from `websockets`, Starlette or FastAPI. This one is for tests: it keeps
    # what it is sent in a list.
    websocket = FakeWebSocket()
    alice = Connection("alice", "room", websocket)

    async with ConnectionsPool() as pool:
        await pool.new_connection(alice)
        assert pool.get_connection("room", "alice") is alice

        # A send says what happened.
        assert await pool.send("room", "alice", "Hello Alice") is SendResult.DELIVERED
        assert await pool.send("room", "bob", "Hello Bob") is SendResult.ABSENT
        assert await websocket.wait_sent() == ["Hello Alice"]


async def test_a_broadcast_reaches_the_whole_namespace() -> None:
    """All members of one namespace get it, and nobody else."""
    alice, bob, carol = FakeWebSocket(), FakeWebSocket(), FakeWebSocket()
    async with ConnectionsPool() as pool:
        await pool.new_connection(Connection("alice", "room", alice))
        await pool.new_connection(Connection("bob", "room", bob))
        await pool.new_connection(Connection("carol", "another room", carol))

        await pool.broadcast_message("room", "to both")
        await pool.broadcast_message("room", "to Bob alone", exclude=["alice"])

        assert await alice.wait_sent() == ["to both"]
        assert await bob.wait_sent(2) == ["to both", "to Bob alone"]
    assert carol.sent == []


async def test_a_connections_handlers_get_its_clients_messages() -> None:
    """Handlers are plain functions or coroutines."""
    alice = Connection("alice", "room", FakeWebSocket())
    said: list[str | bytes] = []

    @alice.on("message")
    async def on_message(message: str | bytes) -> None:
        said.append(message)

    @alice.on("close")
    def on_close(code: int, reason: str) -> None:
        said.append(f"closed with {code}: {reason}")

    async with ConnectionsPool() as pool:
        await pool.new_connection(alice)

        # `await connection.run()` reads from a real WebSocket. A test feeds it instead.
        await alice.feed("Hi!")
        await pool.close("room", "alice", 4000, "bye")
        await alice.wait_closed()

    assert said == ["Hi!", "closed with 4000: bye"]


async def test_the_last_one_is_noticed() -> None:
    """A callback is called when a namespace becomes empty."""
    alice = Connection("alice", "room", FakeWebSocket())
    bob = Connection("bob", "room", FakeWebSocket())
    emptied: list[str] = []
    async with ConnectionsPool() as pool:
        await pool.new_connection(alice)
        await pool.new_connection(bob)
        await pool.remove_connection(alice, lambda: emptied.append("after Alice"))
        await pool.remove_connection(bob, lambda: emptied.append("after Bob"))
    assert emptied == ["after Bob"]
