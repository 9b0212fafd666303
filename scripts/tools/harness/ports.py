"""Ports of loopback."""

import contextlib
import os
import random
import socket
from collections import deque
from typing import Final

HOST: Final = "127.0.0.1"
OURS: Final = range(20_000, 32_000)
"""Ports to listen on: below those that a kernel gives to outgoing connections by itself, of which
one may take a port between the look at it and its use."""
SHARES: Final = 8
"""Workers of one run of the tests that have ports of their own: one would else choose a port that
another has chosen and does not listen on yet."""

_given: deque[int] = deque(maxlen=1_000)
"""The latest ports that this process was given, which it is not given again: a server may have been
killed that comes back at one of them, or may not listen yet."""
_random = random.SystemRandom()  # a test that seeds the other has all processes choose alike


def free_ports(count: int) -> list[int]:
    """Ports that are free now, all different, in no order."""
    with contextlib.ExitStack() as probes:
        ports = [probes.enter_context(_free()).getsockname()[1] for _ in range(count)]
    _given.extend(ports)
    return ports


def free_port() -> int:
    """A port that is free now."""
    return free_ports(1)[0]


def _free() -> socket.socket:
    while True:
        port = _random.choice(_share())
        if port not in _given:
            with contextlib.suppress(OSError):
                return socket.create_server((HOST, port))


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
