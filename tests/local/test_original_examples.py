"""The examples in the README of @soketi/connections, in Python; and its faults, which we avoid."""

import asyncio

from cluster_pool import Connection, ConnectionsPool, SendResult
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test


async def member(
    pool: ConnectionsPool, namespace: str, id: str
) -> tuple[Connection, FakeWebSocket]:
    websocket = FakeWebSocket()
    connection = Connection(id, namespace, websocket)
    await pool.new_connection(connection)
    return connection, websocket


@async_test
async def test_a_connection_with_a_message_handler() -> None:
    """``connection.on("message")`` gets the client's message."""
    pool = ConnectionsPool()
    connection, _ = await member(pool, "default", "1")
    seen: list[str | bytes] = []
    connection.on("message", seen.append)

    @connection.on("message")
    async def shout(message: str) -> None:
        await connection.send(message.upper())

    await connection.feed("hello")
    assert seen == ["hello"]
    assert await connection.websocket.wait_sent() == ["HELLO"]


@async_test
async def test_a_broadcast_to_a_namespace() -> None:
    """Every member gets it, except the excluded ids."""
    async with ConnectionsPool() as pool:
        sockets = [(await member(pool, "default", str(at)))[1] for at in range(3)]
        _, other = await member(pool, "other", "0")
        assert await pool.broadcast_message("default", "hi", exclude=["1"]) == 2
        assert await pool.broadcast_json_message("default", {"a": 1}) == 3
        assert await sockets[0].wait_sent(2) == ["hi", '{"a":1}']
        assert await sockets[1].wait_sent() == ['{"a":1}']
        assert other.sent == []


@async_test
async def test_a_send_to_one_id() -> None:
    """Only that one gets it, and the result says so."""
    async with ConnectionsPool() as pool:
        _, one = await member(pool, "default", "1")
        _, two = await member(pool, "default", "2")
        assert await pool.send("default", "2", "hi") is SendResult.DELIVERED
        assert await pool.send_json("default", "2", [1]) is SendResult.DELIVERED
        assert await two.wait_sent(2) == ["hi", "[1]"]
        assert one.sent == []


@async_test
async def test_removal_with_the_last_one_callback() -> None:
    """The callback, sync or async, fires for the last member only, and is awaited."""
    async with ConnectionsPool() as pool:
        one, _ = await member(pool, "default", "1")
        two, _ = await member(pool, "default", "2")
        fired: list[str] = []

        async def last() -> None:
            await asyncio.sleep(0)
            fired.append("two")

        await pool.remove_connection(one, lambda: fired.append("one"))
        assert fired == []
        await pool.remove_connection(two, last)
        await pool.remove_connection(two, last)
        assert fired == ["two"]
        assert not pool.has_namespace("default")


@async_test
async def test_close_all_with_code_and_reason() -> None:
    """Everyone is closed with it; the namespace is empty; the last-one callback still works."""
    async with ConnectionsPool() as pool:
        members = [await member(pool, "default", str(at)) for at in range(3)]
        assert await pool.close_all("default", 4001, "maintenance") == 3
        for _, socket in members:
            assert await socket.wait_closed() == (4001, "maintenance")
        assert not pool.has_namespace("default")
        fired: list[int] = []
        for number, (connection, _) in enumerate(members):
            await pool.remove_connection(connection, lambda number=number: fired.append(number))
        assert fired == [2]


@async_test
async def test_drain_in_paced_batches() -> None:
    """Closes are spread over time at the rate asked for, and awaiting it means closed."""
    async with ConnectionsPool() as pool:
        members = [await member(pool, "default", str(at)) for at in range(30)]
        report = await pool.drain_connections(60, "moving", 1012)
        assert (report.closed, report.forced) == (30, 0)
        assert report.seconds > 0.35, "thirty closes at sixty a second came in a burst"
        assert report.peak_rate <= 60 * 1.1 + 1
        for _, socket in members:
            assert socket.sent == ["moving"]
            assert socket.closed is not None
            assert socket.closed[0] == 1012
        await member(pool, "default", "after the drain")


@async_test
async def test_looking_up_a_namespace_does_not_create_it() -> None:
    """Neither sends, nor queries, nor closes create one."""
    async with ConnectionsPool() as pool:
        assert pool.get_connection("nothing", "1") is None
        assert await pool.send("nothing", "1", "x") is SendResult.ABSENT
        assert await pool.broadcast_message("nothing", "x") == 0
        assert await pool.close_all("nothing") == 0
        assert not pool.has_namespace("nothing")
        assert pool.statistics()["namespaces"] == 0


@async_test
async def test_a_duplicate_id_does_not_overwrite_silently() -> None:
    """The older one is closed with 4409, and its late removal leaves the newer one alone."""
    async with ConnectionsPool() as pool:
        older, older_socket = await member(pool, "default", "1")
        newer, newer_socket = await member(pool, "default", "1")
        assert (await older_socket.wait_closed())[0] == 4409
        fired: list[int] = []
        await pool.remove_connection(older, lambda: fired.append(1))
        assert pool.get_connection("default", "1") is newer
        assert await pool.send("default", "1", "hi")
        assert await newer_socket.wait_sent() == ["hi"]
        assert fired == []


@async_test
async def test_send_after_close_is_refused() -> None:
    """A closing connection accepts nothing, and says so."""
    async with ConnectionsPool() as pool:
        connection, socket = await member(pool, "default", "1")
        await connection.close(1000, "bye")
        assert await connection.send("late") is SendResult.REFUSED
        assert await pool.send("default", "1", "late") is SendResult.ABSENT
        assert socket.sent == []


@async_test
async def test_send_then_close_closes_once() -> None:
    """The message goes first and exactly one close follows."""
    closes: list[tuple[int, str]] = []
    sent: list[str | bytes] = []
    async with ConnectionsPool() as pool:
        pair = (sent.append, lambda code, reason: closes.append((code, reason)))
        connection = Connection("1", "default", pair)
        await pool.new_connection(connection)
        await pool.send_json_then_close("default", "1", {"error": 1}, 4000, "bad")
        await connection.close()
        assert sent == ['{"error":1}']
        assert closes == [(4000, "bad")]
