"""The agent-check listener: HAProxy connects, reads one line, and acts on it.

What the words do was seen at HAProxy 2.6 (its configuration manual, "agent-check"):

- ``drain`` keeps sessions and sends nobody new. Only the agent takes it back, by ``ready``; one
  that is gone changes nothing. So a node says ``drain`` until it is gone, and the one that comes
  after it at the same address says ``ready``.
- ``up`` never overrides a health check that says down, so what else may be wrong with a node
  (Redis lost, say) is left to /readyz.
- ``N%`` is a share of the weight that the server has in HAProxy's file, rounded down: with the
  default weight of 1, anything below 100 % is nobody. The file must say ``weight 100``.
"""

import asyncio
from typing import Final, cast

from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.server.newcomers import Newcomers

SPARE: Final = 0.1
"""From this share of its headroom on a node has its full weight. Were every percent told, leastconn
would send all newcomers to one node after another: a difference of one percent in weight is one of
a hundred in ten thousand connections. Two nodes that each took 140 of 280 a second took 280 in
turns."""
PATIENCE: Final = 1.0
"""Seconds that a client has to hang up after its line."""
MOST_SAID: Final = 4096
"""Bytes that a client may say meanwhile; nobody reads them."""
MOST_OPEN: Final = 64
"""Clients at a time; for one more the oldest is cut."""


def line_of(free: float | None) -> bytes:
    """What the agent says, given the free share of the headroom; None: it takes nobody."""
    if free is None:
        return b"drain\n"
    return b"ready up %d%%\n" % max(1, min(100, int(100 * free / SPARE)))


class AgentListener:
    """Tells whoever connects what this node can take. No task, and no state but open sockets."""

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
        """Stop listening, and cut who is left."""
        if self._server is not None:
            self._server.close()
        for client in list(self._open):
            client.cut()

    def enter(self, client: "_Client") -> bytes:
        """A client connected: gives what it is told."""
        while len(self._open) >= MOST_OPEN:
            next(iter(self._open)).cut()
        self._open[client] = None
        return line_of(self._pool.free())

    def leave(self, client: "_Client") -> None:
        """A client is gone, or as good as gone."""
        self._open.pop(client, None)


class _Client(asyncio.Protocol):
    """Tell, then wait until the other side hangs up, but not for long.

    A socket that is closed with something unread is reset, and the line is lost: hence what a
    client says (``agent-send``) is read and thrown away.
    """

    def __init__(self, listener: AgentListener, newcomers: Newcomers) -> None:
        self._listener = listener
        self._newcomers = newcomers
        self._said = 0
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say the line, and that there is no more."""
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
        """Nobody asked."""
        self._said += len(data)
        if self._said > MOST_SAID:
            self.cut()

    def connection_lost(self, error: Exception | None) -> None:
        """It hung up, or was cut."""
        self._timer.cancel()
        self._listener.leave(self)

    def cut(self) -> None:
        """Hang up."""
        self._listener.leave(self)
        self._transport.abort()
