"""Ports of loopback."""

import contextlib
import os
import random
import socket
import sys
from collections import deque
from typing import Final

HOST: Final = "127.0.0.1"
OURS: Final = range(20_000, 32_000)
"""Ports to listen on: below those that a kernel gives to outgoing connections by itself, of which
one may take a port between the look at it and its use."""
RESERVED: Final = 200
"""Ports that this process keeps from others."""

_given: deque[int] = deque(maxlen=1_000)
"""The latest ports that this process was given, which it is not given again: a server may have been
killed that comes back at one of them, or may not listen yet."""
_reservations: deque[int] = deque()
"""The descriptors that keep the latest of them from other processes, which do the same."""
_random = random.SystemRandom()  # a test that seeds the other has all processes choose alike


def free_ports(count: int) -> list[int]:
    """Ports that are free now, all different, in no order."""
    return [_free() for _ in range(count)]


def free_port() -> int:
    """A port that is free now."""
    return free_ports(1)[0]


def _free() -> int:
    while True:
        port = _random.choice(OURS)
        if port in _given:
            continue
        with contextlib.suppress(OSError), socket.create_server((HOST, port)):
            _reserve(port)
            _given.append(port)
            return port


def _reserve(port: int) -> None:
    """Keep other processes from being given a port; raises OSError if one has it."""
    with socket.socket(socket.AF_UNIX) as reservation:
        if sys.platform == "linux":  # a name that is no file, and ends with its socket
            reservation.bind(f"\0cluster_pool port {port}")
        _reservations.append(reservation.detach())
    if len(_reservations) > RESERVED:
        os.close(_reservations.popleft())


def accepts(port: int) -> bool:
    """Whether the port is open."""
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True
