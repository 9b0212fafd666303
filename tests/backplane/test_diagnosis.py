"""The reason why a port does not answer is found quickly, over a socket of its own."""

import asyncio
import contextlib
import gc
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import pytest
from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection

from cluster_pool.backplane.diagnosis import diagnosis
from cluster_pool.backplane.logins import Login
from cluster_pool.backplane.names import Names
from tests.certificates import Authority
from tests.support import async_test

MUTE = ConnectionResetError("reset")


def _login(port: int, *, tls: bool) -> Login:
    return Login(SSLConnection if tls else Connection, {"host": "127.0.0.1", "port": port})


@contextlib.asynccontextmanager
async def _listening(
    answer: bytes | None, context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A port that answers everything with these bytes, closes (b""), or stays silent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        if answer is not None and await reader.read(100):
            writer.write(answer)
            writer.close()

    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
    for _ in range(5):  # what was accepted at last is served a few turns later
        await asyncio.sleep(0)
    for writer in held:
        writer.transport.abort()


@async_test
async def test_a_port_that_speaks_tls_is_found_out(tmp_path: Path) -> None:
    """With any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority(tmp_path).issue("server"))
    async with _listening(None, context) as port:
        found = await diagnosis(_login(port, tls=False), Names(), MUTE)
    assert found.startswith("that port speaks TLS")


@pytest.mark.parametrize("answer", [b"-NOAUTH Authentication required.\r\n", b"+PONG\r\n"])
@async_test
async def test_a_port_that_speaks_no_tls_is_found_out(answer: bytes) -> None:
    """A Redis answers a PING in plain text, if only with a refusal."""
    async with _listening(answer) as port:
        found = await diagnosis(_login(port, tls=True), Names(), TimeoutError())
    assert found.startswith("that port speaks no TLS")


@pytest.mark.parametrize(
    ("answer", "tls"),
    [(b"", True), (b"", False), (None, True), (None, False), (b"HTTP/1.1 400 Bad Request", False)],
)
@async_test
async def test_any_other_port_gets_no_diagnosis(answer: bytes | None, tls: bool) -> None:
    """It is not waited for long, either."""
    async with _listening(answer) as port:
        began = monotonic()
        assert await diagnosis(_login(port, tls=tls), Names(), MUTE) == ""
        assert monotonic() - began < 2


@async_test
async def test_an_error_that_names_its_reason_is_not_diagnosed() -> None:
    """A refused connection, or a reply; nor is a unix socket, which has no TLS."""
    async with _listening(b"+PONG\r\n") as port:
        for error in (ConnectionRefusedError(), OSError("no route")):
            assert await diagnosis(_login(port, tls=True), Names(), error) == ""
        began = monotonic()  # as a frozen server, which is asked again soon enough
        assert await diagnosis(_login(port, tls=False), Names(), TimeoutError()) == ""
        assert monotonic() - began < 0.1
        unix = Login(UnixDomainSocketConnection, {"path": "/nowhere"})
        assert await diagnosis(unix, Names(), MUTE) == ""


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_a_diagnosis_that_is_cancelled_leaves_no_error_behind(name: str) -> None:
    """At whatever moment, while the port resets every connection."""
    loops = pytest.importorskip(name)
    logged: list[str] = []

    def reset_all() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

    async def diagnose() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: logged.append(str(context)))
        login = _login(server.getsockname()[1], tls=False)
        for number in range(200):
            task = asyncio.create_task(diagnosis(login, Names(), MUTE))
            await asyncio.wait([task], timeout=number % 10 / 2000)
            task.cancel()
            await asyncio.wait([task])
        gc.collect()
        await asyncio.sleep(0)

    with socket.create_server(("127.0.0.1", 0)) as server:
        resetting = threading.Thread(target=reset_all)
        resetting.start()
        with asyncio.Runner(loop_factory=loops.new_event_loop) as runner:
            runner.run(diagnose())
        server.shutdown(socket.SHUT_RDWR)
        resetting.join()
    assert logged == []
