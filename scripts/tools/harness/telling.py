"""An application for ``serve --app`` that tells its clients what the node knows of their messages.

Each client is first told whether it got what it missed, as the documentation has it, behind all
that it missed; and later whenever its node may have missed something for it. Such a word begins
with ``~``; clients that read these are in :mod:`tools.harness.movers`.
"""

from cluster_pool import ClusterPool, Connection, ConnectionClosedError, Gap

APP = "tools.harness.telling:app"
WORD = "~ "
GAP = f"{WORD}gap"
LOSS = (f"{WORD}False", GAP)
"""The words for messages that may be missing."""

_held: dict[ClusterPool, set[Connection]] = {}


async def app(pool: ClusterPool, connection: Connection) -> None:
    """Tell the client, and read what it says."""
    held = _held.get(pool)
    if held is None:
        held = _held[pool] = set()
        pool.on("gap", lambda gap: _tell(gap, pool))
    held.add(connection)
    try:
        await connection.send(f"{WORD}{connection.recovered}")
        await connection.run()
    finally:
        held.discard(connection)


def concerns(gap: Gap, namespace: str) -> bool:
    """Whether a client of a namespace may lack messages: some that were for everybody there, or
    some that were for single clients of this node."""
    return not gap.exact or "" in gap.namespaces or namespace in gap.namespaces


async def _tell(gap: Gap, pool: ClusterPool) -> None:
    for connection in list(_held[pool]):
        if concerns(gap, connection.namespace):
            try:
                await connection.send(GAP)
            except ConnectionClosedError:
                continue
