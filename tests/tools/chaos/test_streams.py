"""The streams of chaos keep within the limits of the nodes that they test."""

import asyncio
import socket

import pytest

from cluster_pool import Limits, Publisher
from tests.servers import RedisServer
from tests.support import async_test
from tools.chaos import sparse
from tools.chaos.caller import Caller
from tools.chaos.streams import SparseStream, large_for
from tools.harness.nodes import NodeProcess

NAMESPACE, ID = "user-1", "tab-1"
HANDSHAKE = (
    "GET /ws/{}?id={} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n"
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def joined(node: NodeProcess) -> socket.socket:
    """A member that does not read yet, and for which the kernel holds little."""
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.settimeout(30)
    link.connect(("127.0.0.1", node.port))
    link.sendall(HANDSHAKE.format(NAMESPACE, ID, node.port).encode())
    assert link.recv(12) == b"HTTP/1.1 101"
    return link


def read_until(link: socket.socket, ends: bytes) -> bytes:
    """Everything that was sent to it, up to these bytes or the end of the connection."""
    got = bytearray()
    while ends not in got[-len(ends) - 65536 :] and (more := link.recv(65536)):
        got += more
    return bytes(got)


@pytest.mark.parametrize("programs", [4, 7])
@async_test
async def test_all_programs_together_wake_a_namespace_without_closing_its_members(
    own_server: RedisServer, programs: int
) -> None:
    """A member that reads nothing meanwhile hears everything, and is not closed with 1013."""
    with NodeProcess(own_server.url) as node:
        async with Publisher(own_server.url) as publisher:
            link = await asyncio.to_thread(joined, node)
            callers = [Caller(publisher, f"program-{at}") for at in range(programs)]
            for caller in callers:
                stream = SparseStream(caller, "")
                stream.large = large_for(programs)
                stream.wake(NAMESPACE)
            for caller in callers:
                await caller.finish()
                await caller.stop()
            await publisher.broadcast_message(NAMESPACE, "the last")
            with link:
                heard = await asyncio.to_thread(read_until, link, b"the last")
    assert heard.endswith(b"the last")
    large = programs * sparse.MOST_IDS * large_for(programs)
    assert large < len(heard) < Limits().outbox_bytes
