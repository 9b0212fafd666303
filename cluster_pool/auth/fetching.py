"""Fetches a published key set from a file or a URL. It blocks: for a thread of its own."""

import contextlib
import http.client
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

MAX_SET: Final = 1024 * 1024
"""Bytes of a published set."""


class Fetch:
    """One reading of a key set, which another thread may cut.

    Args:
        where: a path or a URL.
        patience: seconds to wait for a connection, and for each piece of the answer. A server that
            sends a byte now and then would hold it up for ever: that is what :meth:`cut` is for.
    """

    def __init__(self, where: str | Path, patience: float) -> None:
        self._where = where
        self._patience = patience
        self._opened: list[socket.socket] = []
        self._over = False

    def read(self) -> bytes:
        """The bytes of the set.

        Raises:
            OSError, ValueError, http.client.HTTPException: it cannot be read, or is too large.
        """
        if isinstance(self._where, Path):
            with self._where.open("rb") as file:
                return _bounded(file.read(MAX_SET + 1))
        request = urllib.request.Request(self._where, headers={"Accept": "application/json"})
        handlers = _NoRedirects, _Http(self._note), _Https(self._note)
        opener = urllib.request.build_opener(*handlers)
        answer: http.client.HTTPResponse
        try:
            with opener.open(request, timeout=self._patience) as answer:
                return _bounded(answer.read(MAX_SET + 1))
        except urllib.error.HTTPError as refused:
            refused.close()
            raise ValueError(f"the answer is {refused.code} {refused.reason}") from None

    def cut(self) -> None:
        """End it: :meth:`read` raises soon, unless it is done."""
        self._over = True
        for one in self._opened:
            with contextlib.suppress(OSError):  # it is closed already
                socket.socket.shutdown(one, socket.SHUT_RDWR)

    def _note(self, opened: socket.socket) -> None:
        self._opened.append(opened)
        if self._over:
            self.cut()


class _Recorded(urllib.request.AbstractHTTPHandler):
    """Tells of the sockets that it opens, which urllib keeps to itself."""

    def __init__(self, opened: Callable[[socket.socket], None]) -> None:
        super().__init__()
        self._opened = opened

    def do_open(self, http_class: Any, req: Any, **options: Any) -> http.client.HTTPResponse:
        opened = self._opened

        class Connection(http_class):  # type: ignore[misc]  # of either kind
            def connect(self) -> None:
                super().connect()
                opened(self.sock)

        return super().do_open(Connection, req, **options)


class _Http(_Recorded, urllib.request.HTTPHandler):
    """For ``http://``."""


class _Https(_Recorded, urllib.request.HTTPSHandler):
    """For ``https://``."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any, **options: Any) -> None:
        """Follow none: the keys come from the named place, or from nowhere."""


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_SET:
        raise ValueError(f"it has more than {MAX_SET} bytes")
    return data
