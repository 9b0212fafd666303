"""A node that is frozen past its lease, and then runs again."""

import signal
import time

from cluster_pool import Member, Publisher
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess, close_code


@async_test
async def test_frozen_node_gives_up_ids_that_others_have_taken_over(
    own_server: RedisServer,
) -> None:
    """While it sleeps its ids are free; awake, it closes the one taken over and keeps the other."""
    with (
        NodeProcess(own_server.url, "--lease", "2", "--node-id", "one") as one,
        NodeProcess(own_server.url, "--lease", "2", "--node-id", "two") as two,
    ):
        async with (
            Publisher(own_server.url) as publisher,
            one.connect("room", "kept", ping_interval=None) as kept,
            one.connect("room", "taken", ping_interval=None) as stale,
        ):
            one.signal(signal.SIGSTOP)
            frozen_at = time.monotonic()
            await eventually(lambda: _count(publisher, 0))
            async with two.connect("room", "taken") as newer:
                await publisher.broadcast_message("room", "while frozen")
                await eventually(lambda: time.monotonic() - frozen_at > 3)
                one.signal(signal.SIGCONT)
                assert await close_code(stale) == 4409
                await eventually(lambda: _count(publisher, 2))
                assert await publisher.locate("room", "taken") == Member("taken", "two")
                assert await publisher.locate("room", "kept") == Member("kept", "one")
                assert await publisher.send("room", "kept", "again", confirm=True)
                assert await publisher.send("room", "taken", "again", confirm=True)
                assert await newer.recv() == "while frozen"
                assert await newer.recv() == "again"
                heard = [await kept.recv()]
                while heard[-1] != "again":
                    heard.append(await kept.recv())


async def _count(publisher: Publisher, count: int) -> bool:
    return await publisher.count("room") == count
