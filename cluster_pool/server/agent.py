"""The agent-check listener: HAProxy connects, reads one line, and acts on it.

The words do the following at HAProxy 2.6 (its configuration manual, "agent-check"):

- ``drain`` keeps sessions and sends no new ones. Only ``ready`` takes it back; an agent that is
  gone changes nothing. So a node says ``drain`` until it is gone, and the next node at the same
  address says ``ready``.
- ``up`` does not override a health check that says down, so any other trouble of a node (Redis
  lost, say) is left to /readyz.
- ``N%`` is a share of the server's weight in HAProxy's file, rounded down: with the default weight
  of 1 anything below 100 % means no sessions. The file must say ``weight 100``.
"""

import asyncio
from typing import Final, cast

from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.server.newcomers import Newcomers

SPARE: Final = 0.1
"""The free share of its headroom from which on a node has its full weight. With a finer scale,
leastconn would send all newcomers to one node after another, since one percent of weight outweighs
a hundred of ten thousand connections: of two nodes that should each accept 140 of 280 connections
per second, each accepted all 280 in turns."""
PATIENCE: Final = 1.0
"""Seconds that a client has to hang up after its line."""
MOST_SAID: Final = 4096
"""Bytes that a client may send meanwhile; they are dropped."""
MOST_OPEN: Final = 64
"""Clients at a time; one more cuts the oldest."""


def line_of(free: float | None) -> bytes:
    """Return the agent's line, given the free share of the headroom; None: no newcomers."""
    if free is None:
        return b"drain\n"
    return b"ready up %d%%\n" % max(1, min(100, int(100 * free / SPARE)))


class AgentListener:
    """Tells each client that connects how many newcomers this node can accept. It has no task."""

    def __init__(self, pool: ClusterPool, port: int, host: str = "127.0.0.1") -> None:
        self._pool = pool
        self._host = host
        self.port = port
        self._open: dict[_Client, None] = {}
        self._server: asyncio.Server | None = None

    async def start(self, newcomers: Newcomers) -> None:
        """Listen; :attr:`port` then tells where. Raises OSError when the port cannot be had."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Client(self, newcomers), self._host, self.port
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop listening, and cut the remaining clients."""
        if self._server is not None:
            self._server.close()
        for client in list(self._open):
            client.cut()

    def enter(self, client: "_Client") -> bytes:
        """Remember a client that connected, and return its line."""
        while len(self._open) >= MOST_OPEN:
            next(iter(self._open)).cut()
        self._open[client] = None
        return line_of(self._pool.free())

    def forget(self, client: "_Client") -> None:
        """Forget a client that is gone or is being cut."""
        self._open.pop(client, None)


class _Client(asyncio.Protocol):
    """Sends the line, and waits a while until the other side hangs up.

    A socket that is closed with something unread is reset, and the line is lost: hence what a
    client sends (``agent-send``) is read and dropped.
    """

    def __init__(self, listener: AgentListener, newcomers: Newcomers) -> None:
        self._listener = listener
        self._newcomers = newcomers
        self._said = 0
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the line and the end of the stream."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by type
        if not self._newcomers.admit(self._transport, ours=True):
            return
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self.cut)
        self._transport.write(self._listener.enter(self))
        try:
            self._transport.write_eof()
        except OSError:  # reset already
            self.cut()

    def data_received(self, data: bytes) -> None:
        """Drop what the client sends, and cut one that sends much."""
        self._said += len(data)
        if self._said > MOST_SAID:
            self.cut()

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the client."""
        self._timer.cancel()
        self._listener.forget(self)

    def cut(self) -> None:
        """Close the socket at once."""
        self._listener.forget(self)
        self._transport.abort()
