"""A node inside the process of a test, and clients that are only sockets."""

import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

from cluster_pool import ClusterPool, Timing
from cluster_pool.server.node import NodeServer
from cluster_pool.testing import FAST
from tests.servers import RedisServer

HANDSHAKE = (
    "GET /ws/room?id={id} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
)


KEY = "dGhlIHNhbXBsZSBub25jZQ=="


RESET = b"\1\0\0\0\0\0\0\0"
"""SO_LINGER that makes close() a reset."""


@contextlib.asynccontextmanager
async def node(
    redis: RedisServer, timing: Timing = FAST, **options: Any
) -> AsyncIterator[tuple[ClusterPool, NodeServer]]:
    """A started pool and its listener."""
    pool = ClusterPool(redis.url, node_id="a", timing=timing)
    server = NodeServer(pool, port=0, **options)
    await pool.start()
    try:
        await server.start()
        yield pool, server
    finally:
        await server.stop()


def url(server: NodeServer, id: str) -> str:
    return f"ws://127.0.0.1:{server.port}/ws/room?id={id}"


def raw_client(server: NodeServer, id: str, key: str = KEY) -> socket.socket:
    """A client that has sent its handshake and does nothing more by itself."""
    client = socket.create_connection(("127.0.0.1", server.port))
    client.settimeout(10)
    client.sendall(HANDSHAKE.format(id=id, key=key).encode())
    return client


def first_line(port: int, data: bytes) -> bytes:
    """The first line of a server's answer to these bytes; no more is sent before it."""
    return whole_answer(port, data).partition(b"\r\n")[0]


def whole_answer(port: int, data: bytes, *, ends: bool = False) -> bytes:
    """A server's whole answer; ``ends`` closes the client's side.

    The end travels in one segment with the last byte where the system can do that: sent behind it,
    a busy machine makes it a client that goes after its handshake was granted.
    """
    heard = b""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(10)
        client.sendall(data, getattr(socket, "MSG_MORE", 0) if ends else 0)
        if ends:
            client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while more := client.recv(65536):
                heard += more
    return heard
