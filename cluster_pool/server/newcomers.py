"""Who connects and is nothing yet: whether a descriptor is left for it, and whether it speaks HTTP.

Owns the reserve of descriptors. Strangers open sockets as they like; the last descriptors are for
the node itself: its links to Redis, its log, then the admin and the agent port. Nothing is said to
a crowd of strangers one by one in the log.
"""

import asyncio
import http
import logging
from math import inf
from typing import Any, Final

from websockets.http11 import Response

from cluster_pool.core.quiet import Quiet, others
from cluster_pool.core.statistics import Counters
from cluster_pool.server.http import answer, come_back

try:
    import resource
except ImportError:  # Windows, where a process may have as many as it likes
    resource = None  # type: ignore[assignment]  # else a module

log = logging.getLogger("cluster_pool.server")

RESERVE: Final = 64
"""Descriptors that clients cannot have; half of all of them where that is less. While many are
refused, some two dozen that are just being closed have one all the same. The first quarter of it is
for those who ask for /healthz, or for what they then get as a proper answer."""
PATIENCE: Final = 1.0
"""Seconds in which these must have had their answer."""
PROTOCOLS: Final = {
    b"\x16\x03": "TLS",
    b"PROXY ": "the PROXY protocol",
    b"\r\n\r\n\x00\r\nQUIT\n": "the PROXY protocol",
    b"PRI * HTTP/2": "HTTP/2 without an upgrade (h2c)",
}
"""What others begin with, and what that is."""


def raise_limit() -> None:
    """Let this process have as many descriptors as its hard limit allows."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard or soft == resource.RLIM_INFINITY:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # macOS has a limit below its hard one
        log.info("descriptors: the limit stays at %d: %s", soft, error)


class Newcomers:
    """Looks at every socket that a listener of this node has accepted.

    A new descriptor is the lowest free number, so its number tells how many are in use.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._quiet = Quiet()
        self._limit = inf
        self._reserve = 0
        if resource is not None:
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            if soft != resource.RLIM_INFINITY:
                self._limit, self._reserve = soft, min(RESERVE, soft // 2)

    def admit(self, transport: asyncio.Transport, *, ours: bool = False) -> bool:
        """Whether it may stay; else it is told to come back later, and closed.

        Args:
            ours: it came to the admin or the agent port, which have three quarters of the reserve.
        """
        number = _number(transport)
        if number < self._limit - (self._reserve // 4 if ours else self._reserve * 3 // 4):
            return True
        self._refused(number)
        transport.set_protocol(asyncio.Protocol())
        transport.write(_no_room().serialize())
        transport.close()
        return False

    def crowded(self, transport: asyncio.Transport) -> bool:
        """Whether its descriptor is of the reserve: it may ask, but be no member."""
        return _number(transport) >= self._limit - self._reserve

    def turn_away(self, transport: asyncio.Transport) -> Response:
        """The answer to who wants to be a member when there are too few descriptors."""
        self._refused(_number(transport))
        return _no_room()

    def _refused(self, number: int) -> None:
        self._counters.descriptors_refused += 1
        if times := self._quiet.due("descriptors", asyncio.get_running_loop().time()):
            log.warning(
                "descriptors run out: %d of %d are in use, and the rest is for the node itself; "
                "newcomers get 503 until some are free (ulimit -n, LimitNOFILE=)%s",
                number,
                self._limit,
                others(times),
            )

    def no_http(self, data: bytes, peer: Any) -> bytes:
        """What to answer to whoever begins with something else than a request that can be read."""
        spoken = protocol_of(data)
        if times := self._quiet.due(spoken, asyncio.get_running_loop().time()):
            log.info(
                "%s speaks %s; this port takes HTTP/1.1 requests without a body%s",
                peer,
                spoken or "no HTTP that can be read",
                others(times),
            )
        text = f"this port takes HTTP/1.1 without a body, not {spoken or 'this'}\n"
        return answer(http.HTTPStatus.BAD_REQUEST, text).serialize()


def _number(transport: asyncio.Transport) -> int:
    number: int = transport.get_extra_info("socket").fileno()
    return number


def _no_room() -> Response:
    return come_back("no descriptors left\n")


def protocol_of(data: bytes) -> str:
    """Which other protocol begins like this; "" for none that is known."""
    return next((name for begin, name in PROTOCOLS.items() if data.startswith(begin)), "")
