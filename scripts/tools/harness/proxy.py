"""A TCP proxy that behaves as a bad network does: it cuts, holds back, delays, refuses.

What it holds back it does not lose: a partition that heals lets the bytes arrive late, as TCP's
retransmissions do. What is lost is lost with a cut.
"""

import asyncio
import contextlib
import socket
import struct
from pathlib import Path
from typing import Self

from tools.harness.ports import HOST, free_port

CHUNK = 65536
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing sends RST instead of FIN."""


class Proxy:
    """Listens on a free port of 127.0.0.1 and forwards to ``target``.

    Args:
        target: the path of a unix socket, or a (host, port).
    """

    def __init__(self, target: Path | tuple[str, int]) -> None:
        self.port = 0
        self.accepted = 0
        self.delay = 0.0
        """Seconds by which every chunk is late, in both directions."""
        self._target = target
        self._upwards = asyncio.Event()
        self._downwards = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], tuple[str, list[asyncio.StreamWriter]]] = {}
        """Where each comes from, and its one or two ends."""

    async def __aenter__(self) -> Self:
        self.heal()
        await self._listen()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.refuse()

    @property
    def open_links(self) -> int:
        """Links that are forwarded at the moment, held back or not."""
        return len(self._links)

    # -- faults ----------------------------------------------------------------------------

    async def cut(self, source: str = "") -> None:
        """Reset every link, or every one from this address; new ones are taken."""
        tasks = []
        for task, (comes_from, writers) in list(self._links.items()):
            if source in ("", comes_from):
                for writer in writers:
                    _reset(writer)
                task.cancel()
                tasks.append(task)
        await asyncio.gather(*tasks, return_exceptions=True)

    def hold(self, *, upwards: bool = True, downwards: bool = True) -> None:
        """A black hole, or half of one: nothing passes until :meth:`heal`, new links included."""
        if upwards:
            self._upwards.clear()
        if downwards:
            self._downwards.clear()

    def strand(self) -> None:
        """Links that there are stay open and carry nothing ever again; new ones are well.

        As a NAT that forgot them or a balancer that hangs leaves both ends. The kernels here go on
        answering TCP's keepalives, as that balancer's would.
        """
        self.hold()
        self._upwards, self._downwards = asyncio.Event(), asyncio.Event()
        self.heal()

    async def refuse(self) -> None:
        """Take no new links, and reset those there are."""
        server, self._server = self._server, None
        if server is not None:
            await _accept_no_more(server)
            server.close()
            await self.cut()
            await server.wait_closed()

    def heal(self) -> None:
        """Let everything through again, what was held back first. Not for :meth:`refuse`."""
        self.delay = 0.0
        self._upwards.set()
        self._downwards.set()

    async def accept(self) -> None:
        """Undo :meth:`refuse`, at the same port."""
        if self._server is None:
            await self._listen()

    # -- forwarding ------------------------------------------------------------------------

    async def _listen(self) -> None:
        self.port = self.port or free_port()  # nobody gets it while it is refused
        self._server = await asyncio.start_server(self._take, HOST, self.port)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        source, *_ = writer.get_extra_info("peername") or ("",)
        writers = [writer]
        task = asyncio.create_task(self._forward(reader, writer, writers, *self._gates(source)))
        self._links[task] = source, writers
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        _, writers = self._links.pop(task)
        for writer in writers:
            writer.transport.abort()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        writers: list[asyncio.StreamWriter],
        upwards: asyncio.Event,
        downwards: asyncio.Event,
    ) -> None:
        with contextlib.suppress(OSError):
            await upwards.wait()
            up_reader, up_writer = await self._connect()
            writers.append(up_writer)
            pumps = [
                asyncio.create_task(self._pump(reader, up_writer, upwards)),
                asyncio.create_task(self._pump(up_reader, writer, downwards)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)

    def _gates(self, source: str) -> tuple[asyncio.Event, asyncio.Event]:
        """The gates through which bytes of a link from this address go, upwards and downwards."""
        return self._upwards, self._downwards

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(str(self._target))
        return await asyncio.open_connection(*self._target)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        while chunk := await source.read(CHUNK):
            if self.delay:
                await asyncio.sleep(self.delay)
            await gate.wait()
            sink.write(chunk)
            await sink.drain()


async def _accept_no_more(server: asyncio.Server) -> None:
    """Let what was accepted become links. A server that closes in between loses such a socket:
    the transport asserts that its server still listens (CPython 3.11)."""
    loop = asyncio.get_running_loop()
    for listener in server.sockets:
        loop.remove_reader(listener.fileno())
    for _ in range(3):  # the task that makes the transport, its start, the link
        await asyncio.sleep(0)


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):  # it is closed already
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
