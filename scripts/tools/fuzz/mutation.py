"""Hostile bytes, texts and msgpack. A ``random.Random`` decides: the same seed, the same case."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgpack

TELLING_BYTES = bytes((0x00, 0x01, 0x0A, 0x20, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xC6, 0xC9, 0xFF))
TELLING_NUMBERS = (0, 1, -1, 127, 128, 255, 2**16, 2**31, 2**32, 2**63 - 1, -(2**63), 2**64 - 1)
TELLING_TEXT = (
    *("", " ", "~", "{", "}", ":", "%", "\x00", "\n", "\r\n", "\x1b[31m", "\x7f", "\x85", "\u2028"),
    *(
        "\ud800",
        "\udfff",
        "\udc80",
        "\ufeff",
        "\u202e",
        "\U0010ffff",
        "e\u0301",
        "İ",
        "ß",
        "𝒳",
        "🏴",
    ),
    *("٣", "NaN", "inf", "-1", "1e400", "0x10", "1_000", "None", "../..", "a" * 256, "é" * 129),
)
LENGTH_BOMBS = (
    *(b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"),
    *(b"\xdb\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xdc\xff\xff", b"\xde\xff\xff"),
)


def mutated(random: Random, original: bytes, others: Sequence[bytes]) -> bytes:
    """``original`` after one to four small accidents."""
    payload = bytearray(original)
    for _ in range(random.randint(1, 4)):
        random.choice(_ACCIDENTS)(random, payload, others)
    return bytes(payload)


def text(random: Random, longest: int = 40) -> str:
    """Text of anything that a ``str`` can hold, lone surrogates included."""
    parts = []
    for _ in range(random.randint(0, 6)):
        match random.randrange(4):
            case 0:
                parts.append(random.choice(TELLING_TEXT))
            case 1:
                parts.append(chr(random.randrange(0x110000)))
            case _:
                size = random.randint(1, longest)
                parts.append("".join(random.choices("abcXYZ019-._~:/?#@!$&'()*+,;=%[]", k=size)))
    return "".join(parts)


def value(random: Random, depth: int = 3) -> Any:
    """Something that msgpack can carry, of any type and most likely the wrong one."""
    match random.randrange(12 if depth else 9):
        case 0:
            return None
        case 1:
            return random.random() < 0.5
        case 2:
            return random.choice(TELLING_NUMBERS)
        case 3:
            return random.choice((0.0, -1.5, 1e308, float("inf"), float("nan")))
        case 4 | 5:
            return text(random).encode(errors="ignore").decode()
        case 6 | 7:
            return random.randbytes(random.randint(0, 40))
        case 8:
            return msgpack.ExtType(random.randrange(128), random.randbytes(random.randint(0, 8)))
        case 9:
            return {
                random.randrange(9): value(random, depth - 1) for _ in range(random.randrange(3))
            }
        case _:
            return [value(random, depth - 1) for _ in range(random.randint(0, 6))]


def bomb(random: Random, most: int) -> bytes:
    """Up to ``most`` bytes of msgpack that cost more than they look: counts, depth, tiny values."""
    size = random.randint(1, most)
    row = b"\xdc\x27\x10" + random.choice((b"\x90", b"\x80", b"\xa0", b"\x01", b"\xc0")) * 10_000
    match random.randrange(5):
        case 0:
            return random.choice(LENGTH_BOMBS) + random.randbytes(min(size, 100))
        case 1:
            return random.choice((b"\x91", b"\xdc\x27\x10", b"\x81\x01")) * (size // 2)
        case 2:
            return b"\x92\x01" + b"\xdc\x03\xe8" + row * (size // len(row))
        case 3:
            smallest = random.choice(
                (b"\x93\x01\xc4\x00\x90", b"\x92\xa0\x93\x04\x01\x00", b"\x91\x01")
            )
            return smallest * (size // len(smallest))
        case _:
            return (b"\x93\x01\xc4\x00" + row) * (size // len(row))


def _truncate(random: Random, payload: bytearray, others: Sequence[bytes]) -> None:
    del payload[random.randint(0, len(payload)) :]


def _flip(random: Random, payload: bytearray, others: Sequence[bytes]) -> None:
    if payload:
        payload[random.randrange(len(payload))] ^= 1 << random.randrange(8)


def _overwrite(random: Random, payload: bytearray, others: Sequence[bytes]) -> None:
    if payload:
        payload[random.randrange(len(payload))] = random.choice(TELLING_BYTES)


def _insert(random: Random, payload: bytearray, others: Sequence[bytes]) -> None:
    at = random.randint(0, len(payload))
    payload[at:at] = random.choice((random.randbytes(random.randint(1, 8)), *LENGTH_BOMBS))


def _delete(random: Random, payload: bytearray, others: Sequence[bytes]) -> None:
    at = random.randint(0, len(payload))
    del payload[at : at + random.randint(1, 16)]


def _repeat(random: Random, payload: bytearray, others: Sequence[bytes]) -> None:
    at = random.randint(0, len(payload))
    payload[at:at] = payload[at : at + random.randint(1, 32)] * random.randint(1, 8)


def _splice(random: Random, payload: bytearray, others: Sequence[bytes]) -> None:
    other = random.choice(others)
    payload[random.randint(0, len(payload)) :] = other[random.randint(0, len(other)) :]


_ACCIDENTS: Sequence[Callable[[Random, bytearray, Sequence[bytes]], None]] = (
    *(_truncate, _flip, _flip, _overwrite, _insert, _delete, _repeat, _splice),
)
