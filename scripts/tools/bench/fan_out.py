"""The cost of a publication to Redis for each of its subscribers, over bare sockets."""

import asyncio
import contextlib
import socket

from tools.bench.stage import Meter, Settings, Tell
from tools.bench.table import Row
from tools.harness.servers import RedisServer

SUBSCRIBERS = (1, 100)
PUBLICATIONS = 500
SIZE = 200
"""Bytes: a message of 128 in its envelope."""
TIMEOUT = 10.0


async def measure(settings: Settings, tell: Tell) -> list[Row]:
    """CPU of Redis per publication, with few subscribers and with many."""
    tell("shards: subscribers of one channel")
    return [
        Row(
            f"a publication to {count} subscribers",
            "µs",
            [await asyncio.to_thread(_publish, count) for _ in range(settings.fresh_rounds)],
            note=f"CPU of Redis; {SIZE} bytes, bare sockets",
        )
        for count in SUBSCRIBERS
    ]


def _publish(count: int) -> float:
    with RedisServer() as redis, contextlib.ExitStack() as sockets:
        publisher, *subscribers = [
            sockets.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(count + 1)
        ]
        for one in (publisher, *subscribers):
            one.settimeout(TIMEOUT)
            one.connect(str(redis.path))
        for one in subscribers:
            _ask(one, b"SUBSCRIBE", b"c")
        meter = Meter({"Redis": redis.pid})
        for _ in range(PUBLICATIONS):
            _ask(publisher, b"PUBLISH", b"c", b"." * SIZE)
            for one in subscribers:
                one.recv(2 * SIZE)
        return meter.micros(PUBLICATIONS)["Redis"]


def _ask(link: socket.socket, *words: bytes) -> None:
    parts = [b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)]
    link.sendall(b"".join(parts))
    link.recv(4096)
