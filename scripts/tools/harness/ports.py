"""Ports of loopback."""

import contextlib
import os
import random
import socket
from typing import Final

HOST: Final = "127.0.0.1"
OURS: Final = range(20_000, 32_000)
"""Ports to listen on: below those that a kernel gives to outgoing connections by itself, of which
one may take a port between the look at it and its use."""
SHARES: Final = 8
"""Workers of one run of the tests that have ports of their own: one would else choose a port that
another has chosen and does not listen on yet."""

_random = random.SystemRandom()  # a test that seeds the other has all processes choose alike


def free_ports(count: int) -> list[int]:
    """Ports that are free now, all different, in no order."""
    with contextlib.ExitStack() as probes:
        return [probes.enter_context(_free()).getsockname()[1] for _ in range(count)]


def free_port() -> int:
    """A port that is free now."""
    return free_ports(1)[0]


def _free() -> socket.socket:
    while True:
        with contextlib.suppress(OSError):
            return socket.create_server((HOST, _random.choice(_share())))


def _share() -> range:
    """The ports of this worker of a run of the tests, such as "gw3"; all outside of one."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    number = worker.removeprefix("gw")
    return OURS[int(number) % SHARES :: SHARES] if number.isdecimal() else OURS


def accepts(port: int) -> bool:
    """Whether the port is open."""
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True
