"""Plain clients that move from node to node while messages are sent to them get every one."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster_pool import ClusterPool, SendResult
from cluster_pool.server.node import NodeServer
from tests.server.framing import node
from tests.server.moving import ROOM, ROOMS, Mover, Sender, Talker
from tests.servers import RedisServer
from tests.support import async_test, eventually


@contextlib.asynccontextmanager
async def two_nodes(
    redis: RedisServer, **options: Any
) -> AsyncIterator[tuple[ClusterPool, ClusterPool, list[NodeServer]]]:
    """Two nodes with a history, and their listeners."""
    options = {"history": ROOMS, **options}
    async with (
        node(redis, "a", **options) as (one, server),
        node(redis, "b", **options) as (two, other),
    ):
        yield one, two, [server, other]


async def keep_moving(pool: ClusterPool, movers: list[Mover], moves: int) -> None:
    """Close each client again and again, as a drain does, until it has moved so often."""
    for _ in range(moves):
        for mover in movers:
            before = mover.moves
            await eventually(lambda m=mover: _sent(pool, m))
            await eventually(lambda m=mover, b=before: m.moves > b, 20)


async def _sent(pool: ClusterPool, mover: Mover) -> bool:
    return bool(await pool.close(ROOM, mover.id, 1012, "moving"))


@pytest.mark.real
@async_test
async def test_clients_that_are_moved_get_every_broadcast_once(own_server: RedisServer) -> None:
    """In order, whatever was sent while they were between two nodes."""
    async with two_nodes(own_server) as (one, two, servers):
        movers = [Mover(f"client-{number}", servers) for number in range(10)]
        await eventually(lambda: one.statistics()["connections"] == 10)
        sender = Sender(lambda text: two.broadcast_message(ROOM, text))
        await keep_moving(one, movers, 5)
        sent = await sender.end()
        await eventually(lambda: all(mover.got[-1:] == sent[-1:] for mover in movers))
        for mover in movers:
            assert mover.got == sent
            await mover.end()


@pytest.mark.real
@pytest.mark.parametrize("secret", [None, "a secret of more than sixteen bytes"])
@async_test
async def test_messages_to_one_client_come_once_too_wherever_it_is(
    own_server: RedisServer, secret: str | None
) -> None:
    """In one order with the broadcasts; the sender learns which of them are parked."""
    async with two_nodes(own_server, secret=secret) as (one, two, servers):
        movers = [Mover(f"client-{number}", servers) for number in range(10)]
        await eventually(lambda: one.statistics()["connections"] == 10)
        results = Counter[SendResult]()

        async def send(text: str) -> None:
            if int(text) % 3:
                await one.broadcast_message(ROOM, text)
            else:
                sends = [two.send(ROOM, mover.id, text) for mover in movers]
                results.update(await asyncio.gather(*sends))

        sender = Sender(send)
        await keep_moving(one, movers, 5)
        sent = await sender.end()
        await eventually(lambda: all(mover.got[-1:] == sent[-1:] for mover in movers))
        for mover in movers:
            assert mover.got == sent
            await mover.end()
        assert results.keys() <= {SendResult.ROUTED, SendResult.PARKED}


@pytest.mark.real
@async_test
async def test_rooms_that_are_joined_again_give_what_was_missed(own_server: RedisServer) -> None:
    """Each by its own position, ahead of what is live there; the answer says so."""
    async with two_nodes(own_server) as (one, two, servers):
        talkers = [Talker(f"client-{number}", servers) for number in range(10)]
        await eventually(lambda: all(talker.answers for talker in talkers))

        async def send(text: str) -> None:
            if int(text) % 3:
                await one.broadcast_message(ROOM, text)
            else:
                await asyncio.gather(*[two.send(ROOM, one.id, text) for one in talkers])

        sender = Sender(send)
        for _ in range(5):
            for talker in talkers:
                answered = len(talker.answers)
                await eventually(lambda t=talker: one.close("lobby", t.id, 1012, "moving"))
                await eventually(lambda t=talker, n=answered: len(t.answers) > n, 20)
        sent = await sender.end()
        await eventually(lambda: all(talker.got[-1:] == sent[-1:] for talker in talkers))
        for talker in talkers:
            assert talker.got == sent
            assert talker.answers == [None] + [True] * (len(talker.answers) - 1)
            await talker.end()
