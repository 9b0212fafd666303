"""Checks every new socket: whether a descriptor is left for it, and whether it speaks HTTP.

Owns the reserve of descriptors. Strangers can open as many sockets as they like, so the last
descriptors are kept for the node itself: its connections to Redis and its log, then the admin and
the agent port. The log has a line for many refusals, not for each.
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
except ImportError:  # Windows, where a process may have any number of descriptors
    resource = None  # type: ignore[assignment]  # else a module

log = logging.getLogger("cluster_pool.server")

RESERVE: Final = 64
"""Descriptors that are kept from clients; half of all where that is less. The first quarter of the
reserve is for requests such as /healthz and for proper answers to newcomers. While many are
refused, some two dozen sockets that are being closed hold a descriptor each all the same."""
PATIENCE: Final = 1.0
"""Seconds that a socket in the reserve has to get its answer."""
PROTOCOLS: Final = {
    b"\x16\x03": "TLS",
    b"PROXY ": "the PROXY protocol",
    b"\r\n\r\n\x00\r\nQUIT\n": "the PROXY protocol",
    b"PRI * HTTP/2": "HTTP/2 without an upgrade (h2c)",
}
"""The first bytes of other protocols, and their names."""


def raise_limit() -> None:
    """Raise this process's limit of descriptors to its hard limit."""
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
    """Admits or refuses the sockets that the listeners of a node have accepted.

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
        """Return whether a socket may stay; one that may not is answered with 503 and closed.

        Args:
            ours: whether it came to the admin or the agent port, which may use three quarters of
                the reserve.
        """
        number = _number(transport)
        if number < self._limit - (self._reserve // 4 if ours else self._reserve * 3 // 4):
            return True
        self._count_refused(number)
        transport.set_protocol(asyncio.Protocol())
        transport.write(_no_room().serialize())
        transport.close()
        return False

    def crowded(self, transport: asyncio.Transport) -> bool:
        """Whether the socket is in the reserve: it gets an answer, but becomes no member."""
        return _number(transport) >= self._limit - self._reserve

    def refuse(self, transport: asyncio.Transport) -> Response:
        """Return the answer for a member without a free descriptor, and count it."""
        self._count_refused(_number(transport))
        return _no_room()

    def _count_refused(self, number: int) -> None:
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
        """Return the answer to first bytes that cannot be read as a request, and log them."""
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
    """Return which other protocol begins like this; "" if none is known."""
    return next((name for begin, name in PROTOCOLS.items() if data.startswith(begin)), "")
