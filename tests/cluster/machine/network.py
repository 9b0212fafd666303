"""The network between one node and a fakeredis server, with faults as of ``tools.harness.network``.

What is held back is not lost: when it heals, the server gets the bytes even of links that their
node has given up meanwhile, as TCP would deliver them.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from fakeredis import FakeAsyncRedis, FakeServer
from fakeredis.aioredis import AsyncFakeSocket, FakeAsyncRedisConnection, FakeWriter
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.clusters import Backend


class FakeNetwork:
    """Every wire of one node."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.wires: set[Wire] = set()
        self.refusing = False
        self.held_upwards = False
        self.held_downwards = False
        self._given_up: list[Wire] = []

    @property
    def url(self) -> FakeAsyncRedis:
        """The client object to give to a pool, so that its sockets go through this network."""
        client = FakeAsyncRedis(server=self.server)
        client.connection_pool.connection_class = Wire
        client.connection_pool.connection_kwargs["network"] = self
        return client

    async def cut(self) -> None:
        """Reset every wire."""
        for wire in list(self.wires):
            wire.cut()
        for wire in self._given_up:
            wire.hang_up()
        self._given_up.clear()

    def hold(self, *, upwards: bool = True, downwards: bool = True) -> None:
        """A black hole, or half of one: nothing passes until :meth:`heal`."""
        self.held_upwards |= upwards
        self.held_downwards |= downwards
        for wire in self.wires:
            if self.held_downwards:
                wire.passing.clear()

    async def refuse(self) -> None:
        """Take no new wires, and reset those there are."""
        self.refusing = True
        await self.cut()

    async def accept(self) -> None:
        """Undo :meth:`refuse`."""
        self.refusing = False

    def heal(self) -> None:
        """Let everything through again, what was held back first. Not for :meth:`refuse`."""
        self.held_upwards = self.held_downwards = False
        for wire in self._given_up:
            wire.let_go()
            wire.hang_up()
        self._given_up.clear()
        for wire in self.wires:
            wire.let_go()

    def left(self, wire: "Wire") -> None:
        """A node has closed its end."""
        self.wires.discard(wire)
        if self.held_upwards:
            self._given_up.append(wire)
        else:
            wire.hang_up()


class Wire(FakeAsyncRedisConnection):
    """One socket of a node to the fake server."""

    def __init__(self, *, network: FakeNetwork, **settings: Any) -> None:
        super().__init__(**settings)
        self.network = network
        self.passing = asyncio.Event()
        self.broken = False
        self._late: list[bytes] = []
        self._server_end: AsyncFakeSocket

    async def _connect(self) -> None:
        if self.network.refusing:
            raise RedisConnectionError("refused")
        await super()._connect()
        assert self._sock is not None
        self._server_end = self._sock
        self._writer = _Writer(self)
        self.network.wires.add(self)
        if not self.network.held_downwards:
            self.passing.set()

    async def _read_response(self, **options: Any) -> Any:
        reply = await self._server_end.responses.get()
        await self.passing.wait()
        if self.broken:
            raise RedisConnectionError("reset")
        return reply

    async def disconnect(self, nowait: bool = False, **options: Any) -> None:
        if self in self.network.wires:
            self.network.left(self)
        await super().disconnect(nowait, **options)

    def write(self, chunk: bytes) -> None:
        """Send, or keep what the network holds back."""
        if self.broken:
            raise RedisConnectionError("reset")
        if self.network.held_upwards:
            self._late.append(chunk)
        else:
            self._server_end.sendall(chunk)

    def let_go(self) -> None:
        """The network passes again."""
        late, self._late = self._late, []
        for chunk in late:
            self._server_end.sendall(chunk)
        self.passing.set()

    def hang_up(self) -> None:
        """The server learns of the end. fakeredis would go on counting it as a subscriber."""
        self._late.clear()
        with self.network.server.lock:
            self._server_end.kill()

    def cut(self) -> None:
        """Reset: both ends learn of it at once, and the node finds nothing more to read."""
        self.broken = True
        self.hang_up()
        self.network.wires.discard(self)
        self._server_end.put_response(None)
        self.passing.set()


class _Writer(FakeWriter):
    def __init__(self, wire: Wire) -> None:
        super().__init__(wire._server_end)
        self._wire = wire

    def writelines(self, data: Iterable[bytes]) -> None:
        for chunk in data:
            self._wire.write(chunk)


async def fake_network(backend: Backend) -> FakeNetwork:
    """The network of one node on fakeredis."""
    assert backend.fake is not None
    return FakeNetwork(backend.fake)
