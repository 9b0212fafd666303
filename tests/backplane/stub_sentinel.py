"""A Sentinel with prepared answers, over a socket."""

import asyncio
import contextlib
from typing import Self

from redis.asyncio import Connection

from cluster_pool.backplane.endpoint import Endpoint
from cluster_pool.backplane.logins import Login
from cluster_pool.backplane.names import Names

Reply = list["Reply"] | str | int | None


class StubSentinel:
    """An async context manager; ``where`` and ``epoch`` may change while it serves.

    Attributes:
        asked: how often it was asked where the primary is.
        silent: says nothing.
    """

    def __init__(self, where: tuple[str, int] | None, epoch: int = 0, *, others: int = 2) -> None:
        self.where = where
        self.epoch = epoch
        self.others = others
        self.silent = False
        self.refusal = ""
        self.master_refused = False
        self.asked = 0
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint at which it is reached."""
        login = Login(Connection, {"host": "127.0.0.1", "port": self.port})
        return Endpoint(login, Names(), 2.0, "the Sentinel")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                count = int((await reader.readuntil(b"\r\n"))[1:])
                words = []
                for _ in range(count):
                    size = int((await reader.readuntil(b"\r\n"))[1:])
                    words.append((await reader.readexactly(size + 2))[:-2].decode())
                if not self.silent:
                    writer.write(self._answer(words))

    def _answer(self, words: list[str]) -> bytes:
        if self.refusal:
            return f"-{self.refusal}\r\n".encode()
        if words == ["PING"]:
            return b"+PONG\r\n"
        _, verb, *_ = words
        if verb == "GET-MASTER-ADDR-BY-NAME":
            self.asked += 1
            return _packed(None if self.where is None else [*map(str, self.where)])
        if verb == "MASTERS":
            return _packed([["name", "other"]])
        if self.master_refused:
            return b"-NOPERM this user has no permissions\r\n"
        state = ["config-epoch", str(self.epoch), "num-other-sentinels", str(self.others)]
        return _packed([*state])


def _packed(reply: Reply) -> bytes:
    if reply is None:
        return b"*-1\r\n"
    if isinstance(reply, list):
        return b"*%d\r\n" % len(reply) + b"".join(map(_packed, reply))
    return f"${len(str(reply))}\r\n{reply}\r\n".encode()
