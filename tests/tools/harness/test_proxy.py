"""The bad network of scripts/chaos, on a small echo server: each of its modes, and healing."""

import asyncio
import contextlib
import gc
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import async_test, eventually
from tools.harness import proxy

SOON = 10.0
"""Seconds within which anything that should happen does."""
NOTHING = 0.2
"""Seconds in which nothing that is held back comes through."""


class Link:
    """A client of the echo server, through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def say(self, text: bytes) -> None:
        self.writer.write(text)
        await self.writer.drain()

    async def hear(self, size: int, seconds: float = SOON) -> bytes:
        async with asyncio.timeout(seconds):
            return await self._reader.readexactly(size)

    async def hears_nothing(self) -> bool:
        try:
            await self.hear(1, NOTHING)
        except TimeoutError:
            return True
        return False

    async def is_reset(self) -> bool:
        async with asyncio.timeout(SOON):
            try:
                return await self._reader.read(1) == b""
            except ConnectionResetError:
                return True


class Echo:
    """An echo server behind a proxy; ``heard`` is what it has got."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.proxy: proxy.Proxy
        self._links: list[Link] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(proxy.CHUNK):
                self.heard += chunk
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def link(self) -> Link:
        link = Link(*await asyncio.open_connection("127.0.0.1", self.proxy.port))
        self._links.append(link)
        return link

    async def hang_up(self) -> None:
        for link in self._links:
            link.writer.close()
            with contextlib.suppress(ConnectionError):
                await link.writer.wait_closed()


@contextlib.asynccontextmanager
async def echo(path: Path | None = None) -> AsyncIterator[Echo]:
    """An echo server on a port, or on a unix socket, with a proxy before it."""
    made = Echo()
    if path is None:
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
        target: Path | tuple[str, int] = server.sockets[0].getsockname()[:2]
    else:
        server = await asyncio.start_unix_server(made.serve, path)
        target = path
    async with server, proxy.Proxy(target) as made.proxy:
        try:
            yield made
        finally:
            await made.hang_up()


@async_test
async def test_it_forwards_both_ways() -> None:
    """All bytes come back, also when they are many."""
    async with echo() as made:
        link = await made.link()
        text = b"0123456789" * 100_000
        _, back = await asyncio.gather(link.say(text), link.hear(len(text)))
        assert back == text
        assert made.proxy.accepted == made.proxy.open_links == 1


@async_test
async def test_it_forwards_to_a_unix_socket() -> None:
    """As to the Redis of a run."""
    with tempfile.TemporaryDirectory() as folder:
        async with echo(Path(folder) / "echo.sock") as made:
            link = await made.link()
            await link.say(b"hello")
            assert await link.hear(5) == b"hello"


@async_test
async def test_a_cut_resets_every_link_and_takes_new_ones() -> None:
    """The links there are end; a new one works at once."""
    async with echo() as made:
        links = [await made.link(), await made.link()]
        for link in links:
            await link.say(b"a")
            await link.hear(1)
        await made.proxy.cut()
        for link in links:
            assert await link.is_reset()
        again = await made.link()
        await again.say(b"b")
        assert await again.hear(1) == b"b"


@async_test
async def test_a_black_hole_holds_back_and_lets_through_when_healed() -> None:
    """Nothing passes and nothing breaks; what was held back arrives late, in order."""
    async with echo() as made:
        link = await made.link()
        await link.say(b"a")
        await link.hear(1)
        made.proxy.hold()
        await link.say(b"bc")
        assert await link.hears_nothing()
        assert made.heard == b"a"
        made.proxy.heal()
        assert await link.hear(2) == b"bc"


@async_test
async def test_a_black_hole_swallows_new_links_too() -> None:
    """They connect, and get no further than the proxy until it heals."""
    async with echo() as made:
        made.proxy.hold()
        link = await made.link()
        await link.say(b"a")
        assert await link.hears_nothing()
        assert made.heard == b""
        made.proxy.heal()
        assert await link.hear(1) == b"a"


@async_test
async def test_upwards_alone() -> None:
    """The server hears nothing."""
    async with echo() as made:
        link = await made.link()
        await link.say(b"a")
        await link.hear(1)
        made.proxy.hold(downwards=False)
        await link.say(b"b")
        assert await link.hears_nothing()
        assert made.heard == b"a"
        made.proxy.heal()
        assert await link.hear(1) == b"b"


@async_test
async def test_downwards_alone() -> None:
    """The server hears, and its answer does not come back."""
    async with echo() as made:
        link = await made.link()
        await link.say(b"a")
        await link.hear(1)
        made.proxy.hold(upwards=False)
        await link.say(b"b")
        assert await link.hears_nothing()
        assert made.heard == b"ab"
        made.proxy.heal()
        assert await link.hear(1) == b"b"


@async_test
async def test_a_delay_makes_everything_late() -> None:
    """By at least so much in each direction; healing ends it."""
    async with echo() as made:
        link = await made.link()
        made.proxy.delay = 0.1
        begun = time.monotonic()
        await link.say(b"a")
        await link.hear(1)
        assert time.monotonic() - begun >= 0.2
        made.proxy.heal()
        assert made.proxy.delay == 0


@async_test
async def test_refusing_and_accepting_again() -> None:
    """Links end, new ones are refused, and later taken at the same port."""
    async with echo() as made:
        link, port = await made.link(), made.proxy.port
        await link.say(b"a")
        await link.hear(1)
        await made.proxy.refuse()
        assert await link.is_reset()
        with pytest.raises(ConnectionRefusedError):
            await made.link()
        await made.proxy.accept()
        assert made.proxy.port == port
        again = await made.link()
        await again.say(b"b")
        assert await again.hear(1) == b"b"


@async_test
@pytest.mark.parametrize("turns", range(6))
async def test_refusing_while_links_arrive_leaves_no_socket_open(turns: int) -> None:
    """A newcomer may be with the listener, its task, or its transport."""
    loop = asyncio.get_running_loop()
    async with echo() as made:
        comers = [socket.socket() for _ in range(5)]
        for comer in comers:
            comer.setblocking(False)
            await loop.sock_connect(comer, ("127.0.0.1", made.proxy.port))
        for _ in range(turns):
            await asyncio.sleep(0)
        await made.proxy.refuse()
        assert not made.proxy.open_links
        for comer in comers:
            comer.close()
        await asyncio.sleep(0)
        gc.collect()  # an open socket that nobody refers to is a warning, hence an error


@async_test
async def test_a_link_ends_with_either_side() -> None:
    """A client that leaves takes its link with it."""
    async with echo() as made:
        link = await made.link()
        await link.say(b"a")
        await link.hear(1)
        link.writer.close()
        await link.writer.wait_closed()
        await eventually(lambda: not made.proxy.open_links)
