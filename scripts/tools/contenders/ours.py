"""Ourselves: a node with the server of ``cluster-pool serve``."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from cluster_pool import BackplaneUnavailableError, ClusterPool, Gap, SendResult
from tools.contenders.served import BROADCAST, NOT_SENT, RETURNED, SEND, UNHEARD, UNKNOWN, Served
from tools.harness.internals import NodeServer

NAMESPACE = "n"
ANSWERS = {SendResult.UNREACHABLE: UNHEARD, SendResult.ABSENT: NOT_SENT}


@contextlib.asynccontextmanager
async def served(redis: str, *, tuned: bool) -> AsyncIterator[Served]:
    """A node."""
    reported: Counter[str] = Counter()
    pool = ClusterPool(redis)

    def missed(gap: Gap) -> None:
        reported[SEND] += gap.namespaces.get("", 0)
        reported[BROADCAST] += gap.namespaces.get(NAMESPACE, 0)

    def failed(error: BackplaneUnavailableError) -> str:
        return UNKNOWN if error.maybe_executed else NOT_SENT

    async def to_all(message: str) -> str:
        try:
            nodes = await pool.broadcast_message(NAMESPACE, message)
        except BackplaneUnavailableError as error:
            return failed(error)
        return RETURNED if nodes else UNHEARD

    async def to_one(id: str, message: str) -> str:
        try:
            result = await pool.send(NAMESPACE, id, message)
        except BackplaneUnavailableError as error:
            return failed(error)
        return RETURNED if result else ANSWERS[result]

    pool.on("gap", missed)
    async with pool:
        server = NodeServer(pool, port=0)
        await server.start()
        await pool.wait_ready()
        yield Served(server.port, to_all, to_one, reported)
        await server.stop()
