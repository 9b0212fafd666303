"""Under TLS, unwritten bytes may hide below the encryption; the outbox is bounded all the same."""

import asyncio
import socket
import ssl
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve

from cluster_pool import Connection, ConnectionsPool, Limits, Timing
from cluster_pool.local.closing import is_gone
from tests.support import async_test, eventually

CERTIFICATE = Path(__file__).parent / "certificate.pem"
"""Self-signed, with its key; not for other uses."""
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
KERNEL = 16 * 1024 * 1024
"""More than the kernels' buffers at both ends can hold for one link."""


def client_that_never_reads(port: int) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", port))
    client = context.wrap_socket(raw)
    client.sendall(HANDSHAKE)
    assert client.recv(1000).startswith(b"HTTP/1.1 101")
    return client


@async_test
async def test_a_client_that_never_reads_is_closed_at_its_cap() -> None:
    """With 1013 once its outbox is full, and cut when it does not answer the close."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    limits, timing = Limits(outbox_bytes=65536), Timing(close=0.5)
    async with ConnectionsPool(limits=limits, timing=timing) as pool:

        async def hold(websocket: ServerConnection) -> None:
            connection = Connection("alice", "n", websocket)
            await pool.new_connection(connection)
            await connection.wait_closed()

        async with serve(hold, "127.0.0.1", 0, ssl=context, ping_interval=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            with await asyncio.to_thread(client_that_never_reads, port):
                alice = await eventually(lambda: pool.get_connection("n", "alice"))
                sent = 0
                while not alice.closed and sent < KERNEL:
                    await pool.send("n", "alice", "x" * 8192)
                    sent += 8192
                    await asyncio.sleep(0)
                assert sent < KERNEL + limits.outbox_bytes
                assert alice.close_code == 1013
                await eventually(lambda: is_gone(alice))
                assert pool.statistics()["slow_consumers"] == 1
                assert pool.statistics()["forced_closes"] == 1
