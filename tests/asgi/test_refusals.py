"""A refused client gets a status, and the server's log gets no traceback."""

import asyncio
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.asgi.servers import Server, running
from tests.asgi.test_departures import every_server
from tests.servers import BINARIES, RedisServer
from tests.support import async_test, eventually


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """One that may be killed."""
    with RedisServer(next(iter(BINARIES))) as server:
        yield server


async def statuses(server: Server, path: str, count: int = 20) -> set[int]:
    """The statuses of so many newcomers at once."""

    async def status() -> int:
        try:
            async with server.connect(path, open_timeout=20):
                return 101
        except InvalidStatus as refused:
            headers = refused.response.headers
            later.append(headers.get("Retry-After"))
            return refused.response.status_code

    later: list[str | None] = []
    found = set(await asyncio.gather(*[status() for _ in range(count)]))
    assert found != {503} or set(later) == {"1"}
    return found


@every_server
@async_test
async def test_newcomers_that_are_refused_leave_nothing_above_info_in_the_log(
    name: str, redis: RedisServer
) -> None:
    """Twenty of each: a bad id, a bad namespace, a taken id, no Redis, a node that drains."""
    async with running(name, redis.url, ON_CONFLICT="reject") as server:
        for path in ("/room/al%7Bice", "/~/x", "/room/" + "x" * 300, "/room/a%00b"):
            assert await statuses(server, path, 5) == {400}
        async with server.connect("/room/alice"):
            assert await statuses(server, "/room/alice") == {409}
        assert server.complaints() == []
        await server.get("/drain")
        assert await statuses(server, "/room/bob") == {503}
        assert [line for line in server.complaints() if "drain" not in line] == []


@every_server
@async_test
async def test_newcomers_without_redis_are_refused_and_the_rest_stays(
    name: str, redis: RedisServer
) -> None:
    """The log is about Redis, and has no traceback."""
    async with running(name, redis.url) as server:
        async with server.connect("/ws/reads/alice") as alice:
            redis.kill()
            assert await statuses(server, "/room/bob") == {503}
            await alice.send("still here")
            assert await alice.recv() == "still here"
        assert [line for line in server.complaints() if "Redis" not in line] == []


@every_server
@async_test
async def test_many_clients_that_want_one_id_leave_no_traceback(
    name: str, redis: RedisServer
) -> None:
    """One of them wins; the others are accepted and closed, or refused if they come too late."""
    async with running(name, redis.url) as server:

        async def come() -> int:
            async with server.connect("/ws/waits/alice", open_timeout=20) as client:
                try:
                    async with asyncio.timeout(3):
                        await client.recv()
                except ConnectionClosed as closed:
                    return closed.rcvd.code if closed.rcvd is not None else 1006
                except TimeoutError:
                    return 0
            return -1

        codes = await asyncio.gather(*[come() for _ in range(5)])
        assert sorted(set(codes)) == [0, 4409]
        assert codes.count(0) == 1
        await eventually(lambda: nobody(server))
        assert server.complaints() == []


async def nobody(server: Server) -> bool:
    state = await server.state()
    return state["open"] == [] and state["connections"] == 0


@every_server
@async_test
async def test_a_message_that_is_too_large_to_pass_on_closes_with_1009(
    name: str, redis: RedisServer
) -> None:
    """The README's endpoint broadcasts each message; a server may accept more than a pool."""
    async with running(name, redis.url) as server:
        async with server.connect("/room/alice") as alice:
            await alice.send("x" * (2**20 + 1))
            with pytest.raises(ConnectionClosed):
                async with asyncio.timeout(10):
                    await alice.recv()
            assert alice.close_code == 1009
        await eventually(lambda: nobody(server))
        assert server.complaints() == []
