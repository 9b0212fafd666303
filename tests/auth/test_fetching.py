"""Fetching a published set: in time, whatever its server sends."""

import contextlib
import http.client
import socket
import ssl
import threading
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_pool import AuthenticationUnavailableError
from cluster_pool.auth import keys
from cluster_pool.auth.fetching import MAX_SET, Fetch
from cluster_pool.auth.keys import PublishedKeys
from tests.certificates import Authority
from tests.support import async_test, eventually

HEAD = b"HTTP/1.0 200 OK\r\n"


@contextlib.contextmanager
def trickling(start: bytes, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The URL of a server that begins an answer, and then sends a byte each tenth of a second."""
    over = threading.Event()

    def answer(accepted: socket.socket) -> None:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            stack.enter_context(accepted)
            client = accepted
            if tls is not None:
                client = stack.enter_context(tls.wrap_socket(accepted, server_side=True))
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
            scheme = "http" if tls is None else "https"
            yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/"
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


def test_over_tls_the_server_must_be_trusted_and_can_be_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue("keys", ["127.0.0.1"]))
    whole = HEAD + b"Content-Length: 2\r\n\r\n{}"
    with trickling(whole, tls) as url:
        with pytest.raises(urllib.error.URLError, match="certificate"):
            Fetch(url, 20).read()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        assert Fetch(url, 20).read() == b"{}"
    with trickling(HEAD, tls) as url:
        fetch, ended = Fetch(url, 20), threading.Event()

        def read() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                fetch.read()
            ended.set()

        threading.Thread(target=read).start()
        assert not ended.wait(1)
        fetch.cut()
        assert ended.wait(20)
