"""A rolling restart of real nodes loses no message for plain clients, and repeats none."""

import contextlib
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from cluster_pool import Publisher
from tests.proxies import NODES, Cluster, haproxy
from tests.server.moving import ROOM, Mover, Sender
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.ports import accepts, free_port

pytestmark = [pytest.mark.real, pytest.mark.slow]


class Front(NamedTuple):
    """A proxy in front of all nodes."""

    port: int


@pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed")
@async_test
async def test_plain_clients_behind_haproxy_get_each_message_once(tmp_path: Path) -> None:
    """Every node is replaced, while messages are sent all the time."""
    front = Front(free_port())
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer("valkey"))
        cluster = Cluster(redis.url, stack, "--history", "room:*=100000")
        stack.enter_context(haproxy(cluster, front.port, tmp_path))
        await eventually(lambda: accepts(front.port))
        async with Publisher(redis.url) as publisher:
            movers = [Mover(f"c{number}", [front]) for number in range(30)]

            async def here(count: int) -> bool:
                return await publisher.count(ROOM) == count

            await eventually(lambda: here(30), 30)
            sender = Sender(lambda text: publisher.broadcast_message(ROOM, text))
            for name in NODES:
                before = sum(mover.moves for mover in movers)
                await cluster.replace(name, lambda _: None)
                await eventually(lambda: here(30), 30)
                assert sum(mover.moves for mover in movers) > before, f"{name} had no client"
            sent = await sender.end()
            await eventually(lambda: all(mover.got[-1:] == sent[-1:] for mover in movers), 30)
            for mover in movers:
                assert mover.got == sent
                await mover.end()
