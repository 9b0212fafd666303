"""Targets that are plain calls into ``core/envelope.py``."""

import asyncio
from random import Random

import msgpack

from cluster_pool.core import envelope
from cluster_pool.core.envelope import BrokenEnvelopeError, ReplyTo
from cluster_pool.core.results import SendResult
from tools.fuzz import mutation, traffic
from tools.harness.servers import RedisServer

LARGEST = 1024 * 1024
TO = ReplyTo("node", 7, "start")
ITEMS = [
    envelope.broadcast(True, b"hello"),
    envelope.broadcast(False, b"\x00\xff" * 40, ["alice", "bob"]),
    envelope.close_all(4000, "reason"),
    envelope.close_one("room", "alice", 4000, "reason", TO),
    envelope.targeted(True, "room", "alice", b"hello"),
    envelope.targeted(False, "room", "alice", b"x", close=(4000, "r"), reply=TO),
    envelope.reply(TO, SendResult.DELIVERED),
    envelope.question("room", "alice", TO),
    envelope.pack(("1a", (envelope.TEXT, "room", "alice", b"hello"))),
    envelope.pack((envelope.TAKEN, "alice", "start.0:1700000000000000:1a")),
]

FIELDS = (
    *(b"", b"-1", b"+1", b"1_0", b"0", b"00", b"1.0", b"9" * 19, b"9" * 100, b"x", b"1 2", b"1\n2"),
    *("٣".encode(), b"\x00", b"\t1", b"inf", b"0x10"),
)
"""Contents of a header's field, most of them wrong."""


def hostile_items(random: Random, largest: int = LARGEST) -> bytes:
    """Items as an attacker might write them."""
    match random.randrange(100):
        case 0:
            return mutation.bomb(random, largest)
        case chance if chance < 15:
            return random.randbytes(random.randint(0, 200))
        case chance if chance < 50:
            return b"".join(_wrong_item(random) for _ in range(random.randint(1, 4)))
        case chance if chance < 60:
            return b"".join(random.choices(ITEMS, k=random.randint(0, 20)))
        case _:
            return mutation.mutated(random, b"".join(random.choices(ITEMS, k=3)), ITEMS)


def _wrong_item(random: Random) -> bytes:
    """A valid item with a field changed, left out or added."""
    item = msgpack.unpackb(random.choice(ITEMS))
    inner = item[1] if isinstance(item[1], list) and random.random() < 0.8 else item
    at = random.randrange(len(inner))
    match random.randrange(4):
        case 0:
            del inner[at]
        case 1:
            inner.insert(at, mutation.value(random))
        case _:
            inner[at] = mutation.value(random)
    packed: bytes = msgpack.packb(item)
    return packed


class Items:
    """The items of an envelope."""

    name, share = "items", 40.0

    def make(self, random: Random) -> bytes:
        return hostile_items(random)

    def judge(self, case: bytes) -> bool:
        try:
            for item in envelope.read_items(case):
                assert isinstance(item, list)
                assert item
        except BrokenEnvelopeError:
            return False
        return True


class Header:
    """The header of an envelope, starting from real ones."""

    name, share = "header", 20.0

    def __init__(self) -> None:
        with RedisServer() as server:
            self._real = asyncio.run(traffic.record(server.url, "cluster_pool")).envelopes

    def make(self, random: Random) -> bytes:
        if random.random() < 0.1:
            return envelope.ENVELOPE + random.randbytes(random.randint(0, 200))
        payload = random.choice(self._real)
        end = payload.find(b"\n") + 1
        if random.random() < 0.3:
            fields = payload[2 : end - 1].split(b" ")
            fields[random.randrange(len(fields))] = random.choice(FIELDS)
            head = envelope.ENVELOPE + b" ".join(fields) + b"\n"
        else:
            head = mutation.mutated(random, payload[:end], self._real)
        return head if random.random() < 0.5 else head + payload[end:]

    def judge(self, case: bytes) -> bool:
        try:
            header, start = envelope.read_header(case)
        except BrokenEnvelopeError:
            return False
        assert isinstance(header.counter_epoch, str)
        assert isinstance(header.sender_start, str)
        assert header.number >= 0
        assert header.generation >= 0
        assert 2 < start <= len(case)
        return True


class Raw:
    """The meaning of a user's own PUBLISH: every payload is valid."""

    name, share = "raw", 10.0

    def make(self, random: Random) -> bytes:
        match random.randrange(4):
            case 0:
                return random.randbytes(random.randint(0, 200))
            case 1:
                return mutation.text(random).encode(errors="surrogatepass")
            case 2:
                return random.choice((b"", envelope.RAW_BINARY)) + random.randbytes(8)
            case _:
                return mutation.mutated(
                    random, mutation.text(random).encode("utf-8", "ignore"), ITEMS
                )

    def judge(self, case: bytes) -> bool:
        is_text, payload = envelope.raw_message(case)
        if is_text:
            payload.decode()
        assert payload in (case, case[2:])
        return True
