"""Signs of life of clients, asked for only when another client claims their id.

A connection whose network died silently looks open until a keepalive ends it. There is no task and
no timer here while no answer is awaited.
"""

import asyncio
from math import inf
from weakref import WeakKeyDictionary

from cluster_pool.local.closing import cut, is_gone
from cluster_pool.local.state import ConnectionState


class SignsOfLife:
    """Asks the clients of one table, each once at a time, for any number of callers.

    Args:
        within: seconds that a client has to give a sign; a sign is valid for as long.
    """

    def __init__(self, within: float) -> None:
        self._within = within
        self._asking: dict[ConnectionState, asyncio.Task[bool]] = {}
        self._given: WeakKeyDictionary[ConnectionState, float] = WeakKeyDictionary()

    async def of(self, connection: ConnectionState) -> bool:
        """Whether its client gives a sign of life; one that gives none is cut (1006).

        True if that cannot be found out: see :meth:`Transport.alive`.
        """
        now = asyncio.get_running_loop().time()
        if now - self._given.get(connection, -inf) < self._within:
            return True
        asking = self._asking.get(connection)
        if asking is None:
            asking = self._asking[connection] = asyncio.create_task(self._ask(connection))
            asking.add_done_callback(lambda _: self._asking.pop(connection, None))
        await asyncio.wait((asking,))
        return asking.cancelled() or asking.result()

    async def _ask(self, connection: ConnectionState) -> bool:
        if await is_alive(connection, self._within):
            self._given[connection] = asyncio.get_running_loop().time()
            return True
        cut(connection)
        return False

    async def stop(self) -> None:
        """Stop asking; callers that wait are told that the client may be there."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def is_alive(connection: ConnectionState, within: float) -> bool:
    """Whether its client gives a sign of life within so many seconds; see Transport.alive."""
    return not is_gone(connection) and await connection._transport.alive(within)
