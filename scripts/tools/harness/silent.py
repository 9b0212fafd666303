"""Members without a WebSocket: they are claimed as every member is, and cost little else."""

import asyncio
from collections.abc import Callable, Sequence

from cluster_pool import ClusterPool, Connection

TOGETHER = 1000
TIMEOUT = 30.0


async def join(
    pool: ClusterPool, namespace: str, ids: Sequence[str], closed: Callable[[int, str], None]
) -> list[Connection]:
    """Make them, many at a time; ``closed`` is told when one of them is closed."""

    def send(message: str | bytes) -> None:
        raise AssertionError("nothing is sent to these")

    members = [Connection(id, namespace, (send, closed)) for id in ids]
    for at in range(0, len(members), TOGETHER):
        some = members[at : at + TOGETHER]
        await asyncio.gather(*[pool.new_connection(one, timeout=TIMEOUT) for one in some])
    return members
