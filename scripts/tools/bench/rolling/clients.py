"""Clients that come back 0 ms after they were closed, as python's ``websockets`` does.

Many in one process, each a few lines of RFC 6455: a handshake, text frames, pings, a close that is
answered. When each was closed and when it was back is written down. A client that is refused waits
a little before it tries again. Run as ``python -m tools.bench.rolling.clients``.
"""

import asyncio
import os
import random
import struct
import time
from collections import Counter
from typing import Any, Final, cast

from tools.bench.children import obey, say

HANDSHAKE: Final = (
    "GET /ws/{namespace}?id={id} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
REFUSED_PAUSE: Final = 0.25
"""Seconds, on average, that a client waits after it was refused."""
TOGETHER: Final = 100
NAMESPACES: Final = 20


def namespace_of(index: int) -> str:
    """Where client ``index`` is a member."""
    return f"room-{index % NAMESPACES}"


def id_of(index: int) -> str:
    """Its id."""
    return f"client-{index}"


class Client(asyncio.Protocol):
    """One client, over all of its connections."""

    def __init__(self, index: int, crowd: "Crowd") -> None:
        self.index = index
        self.heard: list[str] = []
        self._crowd = crowd
        self._tcp: asyncio.Transport
        self._rest = b""
        self._open = False
        self._code = 1006

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        self._rest, self._open, self._code = b"", False, 1006
        path = HANDSHAKE.format(namespace=namespace_of(self.index), id=id_of(self.index))
        self._tcp.write(path.encode())

    def data_received(self, data: bytes) -> None:
        self._rest += data
        if not self._open:
            head, end, rest = self._rest.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._crowd.refusals[head[9:12].decode()] += 1
                self._tcp.abort()
                return
            self._open, self._rest = True, rest
            self._crowd.is_back(self)
        self._read_frames()

    def _read_frames(self) -> None:
        while len(self._rest) >= 2:
            size, start = self._rest[1], 2
            if size == 126:
                if len(self._rest) < 4:
                    return
                size, start = struct.unpack_from("!H", self._rest, 2)[0], 4
            if len(self._rest) < start + size:
                return
            opcode, payload = self._rest[0] & 15, self._rest[start : start + size]
            self._rest = self._rest[start + size :]
            if opcode == TEXT:
                self.heard.append(payload.decode())
            elif opcode == PING:
                self._answer(PONG, payload)
            elif opcode == CLOSE:
                self._code = struct.unpack_from("!H", payload)[0]
                self._crowd.closed.append(time.monotonic())
                self._answer(CLOSE, payload[:2])

    def _answer(self, opcode: int, payload: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        self._tcp.write(bytes((0x80 | opcode, 0x80 | len(payload))) + mask + masked)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._open:
            self._crowd.codes[str(self._code)] += 1
            if self._code == 1006:
                self._crowd.closed.append(time.monotonic())
        self._crowd.come_back(self, 0.0 if self._open else random.uniform(0, 2 * REFUSED_PAUSE))


class Crowd:
    """All clients of this process."""

    def __init__(self) -> None:
        self._clients: list[Client] = []
        self._address = ("", 0)
        self._coming: set[asyncio.Task[None]] = set()
        self._open: set[int] = set()
        self._stopped = False
        self.closed: list[float] = []
        self.back: list[float] = []
        self.codes: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()

    def is_back(self, client: Client) -> None:
        """A handshake has succeeded."""
        self.back.append(time.monotonic())
        self._open.add(client.index)

    def come_back(self, client: Client, pause: float) -> None:
        """Connect anew."""
        self._open.discard(client.index)
        if not self._stopped:
            task = asyncio.create_task(self._connect(client, pause))
            self._coming.add(task)
            task.add_done_callback(self._coming.discard)

    async def _connect(self, client: Client, pause: float) -> None:
        await asyncio.sleep(pause)
        loop = asyncio.get_running_loop()
        while not self._stopped:
            try:
                await loop.create_connection(lambda: client, *self._address)
            except OSError:
                self.refusals["no connection"] += 1
                await asyncio.sleep(random.uniform(0, 2 * REFUSED_PAUSE))
            else:
                return

    async def connect(self, host: str, port: int, count: int) -> dict[str, Any]:
        """Open all of them, and wait until they are."""
        self._address = (host, port)
        for at in range(0, count, TOGETHER):
            for index in range(at, min(at + TOGETHER, count)):
                client = Client(index, self)
                self._clients.append(client)
                self.come_back(client, 0.0)
            while len(self._open) < min(at + TOGETHER, count):  # noqa: ASYNC110  # for any of many
                await asyncio.sleep(0.005)
        return await self.forget()

    async def forget(self) -> dict[str, Any]:
        """Count anew."""
        self.closed, self.back = [], []
        self.codes.clear()
        self.refusals.clear()
        for client in self._clients:
            client.heard.clear()
        return {"open": len(self._open)}

    async def report(self) -> dict[str, Any]:
        """What has happened since."""
        heard = {str(client.index): client.heard for client in self._clients if client.heard}
        return {
            "open": len(self._open),
            "closed": self.closed,
            "back": self.back,
            "codes": dict(self.codes),
            "refusals": dict(self.refusals),
            "heard": heard,
        }

    async def count(self) -> dict[str, Any]:
        """How many are open."""
        return {"open": len(self._open)}

    async def stop(self) -> dict[str, Any]:
        """Come back no more."""
        self._stopped = True
        return {}


async def main() -> None:
    """Obey until standard input ends."""
    crowd = Crowd()
    say()
    await obey(
        {
            "connect": crowd.connect,
            "forget": crowd.forget,
            "open": crowd.count,
            "report": crowd.report,
            "stop": crowd.stop,
        }
    )


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
