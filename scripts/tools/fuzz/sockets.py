"""Strangers at the port of ``serve``: requests, frames, and what clients say."""

import asyncio
import base64
import contextlib
import json
import struct
from random import Random
from typing import Any, Self

from redis.asyncio import Redis

from cluster_pool import ClusterPool, Connection
from cluster_pool.core.closing import NORMAL, check_close
from cluster_pool.core.config import Limits
from cluster_pool.exceptions import InvalidMessageError, MessageTooLargeError
from cluster_pool.testing import FakeWebSocket
from tools.fuzz import mutation
from tools.fuzz.settings import hostile_path
from tools.fuzz.traffic import ALICE, NAMESPACE
from tools.harness.frames import CLOSE, END, TEXT, client_frame, masked, read, request
from tools.harness.internals import Keys, NodeServer
from tools.harness.servers import RedisServer

PREFIX = "cluster_pool:fuzz"
PATIENCE = 20.0
LARGEST = 64 * 1024
HANDSHAKE = request("/ws/room")
LINES = (b"GET / HTTP/1.1\r\n", b"Upgrade: websocket\r\n", b"X: " + b"y" * 9000 + b"\r\n", b"\r\n")


class Node:
    """A node that serves, and an ear on what it publishes for its clients."""

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            url = stack.enter_context(RedisServer()).url
            limits = Limits(message_bytes=LARGEST, inbound_per_second=1_000_000)
            self.pool = await stack.enter_async_context(
                ClusterPool(url, prefix=PREFIX, limits=limits)
            )
            self.server = NodeServer(self.pool, port=0)
            stack.push_async_callback(self.server.stop)
            await self.server.start()
            redis: Redis = await stack.enter_async_context(Redis.from_url(url))
            self._subscriber = await stack.enter_async_context(redis.pubsub())
            await self._subscriber.subscribe(Keys(PREFIX).inbound(NAMESPACE))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def said(self) -> dict[str, Any]:
        """The next client's message as it was published; any other shape is an error."""
        async with asyncio.timeout(PATIENCE):
            while True:
                message = await self._subscriber.get_message(timeout=PATIENCE)
                if message is not None and message["type"] == "message":
                    fields = json.loads(message["data"])
                    assert fields.keys() in ({"id", "node", "text"}, {"id", "node", "binary"})
                    return dict(fields)

    async def answer_to(self, request: bytes, frames: bytes | None = None) -> bytes:
        """Everything the node says to a request, and to frames once it has said 101.

        Our side ends behind what cannot be a whole request, and behind the frames.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        try:
            async with asyncio.timeout(PATIENCE):
                return await _conversation(reader, writer, request, frames)
        finally:
            writer.transport.abort()


async def _conversation(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    request: bytes,
    frames: bytes | None,
) -> bytes:
    head = b""
    with contextlib.suppress(ConnectionError):
        writer.write(request)
        if END not in request:
            writer.write_eof()
        while END not in head and (some := await reader.read(65536)):
            head += some
        if not head.startswith(b"HTTP/1.1 101"):
            return head + await reader.read()
        if frames is not None:
            writer.write(frames)
            writer.write_eof()
            return head + await reader.read()
    return head


class Requests(Node):
    """Requests, most of which are none. Every one gets an answer or an end, and never a 500."""

    name, share = "http", 1.0

    def make(self, random: Random) -> bytes:
        request = HANDSHAKE
        if random.random() < 0.5:
            path = hostile_path(random).encode(errors="surrogateescape")
            request = request.replace(b"/ws/room", path.replace(b" ", b"+"))
        if random.random() < 0.7:
            request = mutation.mutated(random, request, (*LINES, HANDSHAKE))
        if random.random() < 0.3:
            at = request.find(b"\r\n") + 2
            request = request[:at] + random.choice(LINES) * random.randint(1, 200) + request[at:]
        return request

    async def judge(self, case: bytes) -> bool:
        answer = await self.answer_to(case)
        if not answer:
            return False
        protocol, status = answer.split(b" ", 2)[:2]
        assert protocol == b"HTTP/1.1"
        assert status in (b"101", b"200", b"503") or status.startswith(b"4"), status
        return status in (b"101", b"200")


class Frames(Node):
    """WebSocket frames, most of which are none, behind a good handshake; then a good client."""

    name, share = "frames", 1.0

    def make(self, random: Random) -> bytes:
        frames = b"".join(_frame(random) for _ in range(random.randint(1, 5)))
        return frames if random.random() < 0.4 else mutation.mutated(random, frames, [frames])

    async def judge(self, case: bytes) -> bool:
        answer = await self.answer_to(HANDSHAKE, case)
        head, _, frames = answer.partition(END)
        assert head.startswith(b"HTTP/1.1 101"), head
        good = masked(TEXT, b"good") + masked(CLOSE, struct.pack("!H", 1000))
        await self.answer_to(HANDSHAKE, good)
        while (await self.said()).get("text") != "good":
            pass
        code = _close_code(frames)
        if code is not None:
            check_close(code, "")
        return code in (None, NORMAL)


class Inbound(Node):
    """A client's message is published unchanged, or refused because it has no UTF-8 form."""

    name, share = "inbound", 1.0

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._connection = Connection(ALICE, NAMESPACE, FakeWebSocket())
        await self.pool.new_connection(self._connection)
        return self

    def make(self, random: Random) -> str | bytes:
        if random.random() < 0.3:
            return random.randbytes(random.choice((0, 1, 100, LARGEST, LARGEST + 1)))
        message = mutation.text(random, 200)
        return message * random.randint(1, 400) if random.random() < 0.05 else message

    async def judge(self, case: str | bytes) -> bool:
        try:
            await self.pool.publish_inbound(self._connection, case)
        except (InvalidMessageError, MessageTooLargeError):
            return False
        fields = await self.said()
        heard = fields["text"] if isinstance(case, str) else base64.b64decode(fields["binary"])
        assert heard == case
        assert fields["id"] == ALICE
        return True


def _frame(random: Random) -> bytes:
    payload = random.choice(
        (
            *(b"", b"hello", random.randbytes(random.randint(0, 200)), b"x" * (LARGEST + 1)),
            *(mutation.text(random).encode(errors="surrogatepass"), struct.pack("!H", 1000) + b"r"),
            struct.pack("!H", random.randrange(65536)),
        )
    )
    first = random.choice((0x81, 0x82, 0x81, 0x82, 0x01, 0x00, 0x80, 0x88, 0x89, 0x8A, 0xC1, 0x83))
    return client_frame(first, payload)


def _close_code(frames: bytes) -> int | None:
    """The code of the close frame among a server's frames, None when there is none."""
    for frame in read(frames):
        if frame.opcode == CLOSE:
            return int.from_bytes(frame.payload[:2], "big") if frame.payload else NORMAL
    return None
