"""Fetching a published set: in time, whatever its server sends."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from cluster_pool import AuthenticationUnavailableError
from cluster_pool.auth import keys
from cluster_pool.auth.fetching import MAX_SET, Fetch
from cluster_pool.auth.keys import PublishedKeys
from tests.support import async_test, eventually

HEAD = b"HTTP/1.0 200 OK\r\n"


@contextlib.contextmanager
def trickling(start: bytes) -> Iterator[str]:
    """The URL of a server that begins an answer, and then sends a byte each tenth of a second."""
    over = threading.Event()

    def answer(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.recv(65536)
            client.sendall(start)
            while not over.wait(0.1):
                client.sendall(b" ")

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],)).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("start", [HEAD, HEAD + b"\r\n"], ids=["headers", "body"])
@async_test
async def test_a_server_that_trickles_is_cut(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a later reading may succeed, and the thread does not outlive its program."""
    monkeypatch.setattr(keys, "PATIENCE", 0.5)
    before = threading.active_count()
    with trickling(start) as url:
        published = PublishedKeys(url)
        with pytest.raises(AuthenticationUnavailableError):
            await published.find("a")
        reading = published._reading
        assert reading is not None
        await eventually(reading.done)
    await eventually(lambda: threading.active_count() <= before + 1)  # one waits for work


def test_a_set_that_is_too_large_is_refused() -> None:
    """Before it is parsed."""
    start = HEAD + b"\r\n" + b" " * (MAX_SET + 1)
    with trickling(start) as url, pytest.raises(ValueError, match="more than"):
        Fetch(url, 20).read()
