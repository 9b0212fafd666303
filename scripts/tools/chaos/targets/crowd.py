"""Raw WebSocket clients in great number: those that never read, and, as a program, those that do.

Run as ``python -m tools.chaos.targets.crowd PORT NAMESPACE COUNT``: connects, says so in a line,
reads and drops everything until standard input ends.
"""

import asyncio
import contextlib
import os
import selectors
import socket
import sys
from collections.abc import AsyncIterator, Iterator

from cluster_pool.embedded import bound_to_parent

HANDSHAKE = (
    "GET /ws/{namespace}?id={id} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SMALL = 4096


def connect(port: int, namespace: str, count: int, *, small: bool) -> Iterator[socket.socket]:
    """Open WebSockets one after another; ``small`` receive buffers fill at once."""
    for at in range(count):
        client = socket.socket()
        if small:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        client.settimeout(30)
        client.connect(("127.0.0.1", port))
        client.sendall(HANDSHAKE.format(namespace=namespace, id=f"c{at}").encode())
        answer = client.recv(1000)
        if not answer.startswith(b"HTTP/1.1 101"):
            raise RuntimeError(f"a handshake was answered {answer[:40]!r}")
        yield client


@contextlib.asynccontextmanager
async def never_reading(port: int, namespace: str, count: int) -> AsyncIterator[None]:
    """Members of whom nobody reads anything."""
    clients: list[socket.socket] = []

    def fill() -> None:
        clients.extend(connect(port, namespace, count, small=True))

    try:
        await asyncio.to_thread(fill)
        yield
    finally:
        for client in clients:
            client.close()


@contextlib.asynccontextmanager
async def reading(port: int, namespace: str, count: int) -> AsyncIterator[None]:
    """As many that read, in a process of their own."""
    process = await asyncio.create_subprocess_exec(
        *bound_to_parent([sys.executable, "-P", "-m", "tools.chaos.targets.crowd"]),
        *(str(port), namespace, str(count)),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if not await process.stdout.readline():
            raise RuntimeError("the readers did not connect: see above")
        yield
    finally:
        process.stdin.close()
        await process.wait()


def _read(port: int, namespace: str, count: int) -> None:
    with selectors.DefaultSelector() as selector:
        for client in connect(port, namespace, count, small=False):
            client.setblocking(False)
            selector.register(client, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        print("connected", flush=True)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    return
                assert isinstance(key.fileobj, socket.socket)
                with contextlib.suppress(BlockingIOError):
                    if not key.fileobj.recv(1 << 16):
                        selector.unregister(key.fileobj)


if __name__ == "__main__":
    _read(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
