"""Bounds what clients that are not authenticated yet can cost: handshakes under way, and addresses.

A handshake is under way from the accepted socket until it is a member. One that is refused is under
way until its socket is closed: else refused clients that stay would be bounded by nothing. Requests
such as /healthz have places of their own, so that a flood does not make the node look dead.
"""

import asyncio
import http
import logging
from typing import Final, Protocol

from websockets.http11 import Response

from cluster_pool.core.ids import shown
from cluster_pool.core.proxies import Proxies
from cluster_pool.core.statistics import Counters
from cluster_pool.server.http import answer, come_back

log = logging.getLogger("cluster_pool.server")

MAX_HANDSHAKES: Final = 10_000
SPARE: Final = 64
"""Sockets above the limit that may still send a request, for /healthz and for proper answers."""
HEADER_BYTES: Final = 32 * 1024
HEADER_SECONDS: Final = 8.0
"""Time for a request, from the accepted socket to its last header."""
LOOK: Final = 1.0


class Newcomer(Protocol):
    """A WebSocket as the bounds use it."""

    transport: asyncio.Transport

    @property
    def request(self) -> object | None:
        """Its request; None until that has come as a whole."""


class HandshakeBounds:
    """Counts the handshakes of a node that are under way, and the sockets of each address.

    Args:
        most: handshakes under way.
        per_address: sockets of one client address, open WebSockets and handshakes; None: any
            number.
    """

    def __init__(
        self, counters: Counters, proxies: Proxies, most: int, per_address: int | None
    ) -> None:
        self._counters = counters
        self._proxies = proxies
        self._most = most
        self._per_address = per_address
        self._under_way: dict[Newcomer, list[float]] = {}
        """When each began, and the bytes of its request so far; the oldest first."""
        self._addresses: dict[Newcomer, str] = {}
        self._of_address: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def admit(self, newcomer: Newcomer, transport: asyncio.Transport) -> bool:
        """Whether a new socket may send a request; one that may not is answered and closed."""
        peer = peer_of(transport)
        if len(self._under_way) >= self._most + SPARE:
            refused: Response | None = self._too_many(peer)
        else:
            known = peer if self._per_address and not self._proxies.trust(peer) else None
            refused = self._count_address(newcomer, known)
        if refused is not None:
            transport.set_protocol(asyncio.Protocol())
            _send(transport, refused)
            return False
        self._under_way[newcomer] = [asyncio.get_running_loop().time(), 0]
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK, self._look)
        return True

    def received(self, newcomer: Newcomer, size: int) -> bool:
        """Count bytes of a request; False if they are too many, and it was answered."""
        counted = self._under_way.get(newcomer)
        if counted is None:
            return True
        counted[1] += size
        if counted[1] <= HEADER_BYTES:
            return True
        self._counters.requests_too_large += 1
        status = http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        self._end(newcomer, answer(status, "the headers are too large\n"))
        return False

    def check(self, newcomer: Newcomer, client: str | None) -> Response | None:
        """The answer for a client that asks for a WebSocket and may not go on; None if it may.

        Args:
            client: its address, as trusted proxies name it.
        """
        if len(self._under_way) > self._most:
            return self._too_many(client)
        if self._per_address and newcomer not in self._addresses:
            return self._count_address(newcomer, client)
        return None

    def answered(self, newcomer: Newcomer) -> None:
        """Its handshake is over; its address is still counted."""
        self._under_way.pop(newcomer, None)

    def gone(self, newcomer: Newcomer) -> None:
        """Its socket is closed."""
        self._under_way.pop(newcomer, None)
        address = self._addresses.pop(newcomer, None)
        if address is not None:
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]

    def stop(self) -> None:
        """End the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _count_address(self, newcomer: Newcomer, address: str | None) -> Response | None:
        if address is None or self._per_address is None:
            return None
        count = self._of_address.get(address, 0)
        if count >= self._per_address:
            self._counters.addresses_refused += 1
            log.debug("refused %s: 429, it has %d connections", shown(address), count)
            text = "this address has too many connections\n"
            return answer(http.HTTPStatus.TOO_MANY_REQUESTS, text)
        self._of_address[address] = count + 1
        self._addresses[newcomer] = address
        return None

    def _too_many(self, address: str | None) -> Response:
        self._counters.handshakes_refused += 1
        log.debug("refused %s: 503, too many handshakes are under way", shown(address))
        return come_back("too many handshakes are under way\n")

    def _end(self, newcomer: Newcomer, response: Response) -> None:
        status = response.status_code
        log.debug("refused %s: %d", shown(peer_of(newcomer.transport)), status)
        self._under_way.pop(newcomer, None)
        _send(newcomer.transport, response)

    def _look(self) -> None:
        """Refuse the clients whose requests take too long."""
        loop = asyncio.get_running_loop()
        began = loop.time() - HEADER_SECONDS
        late = [one for one, counted in self._under_way.items() if counted[0] < began]
        for newcomer in late:
            if newcomer.request is None:
                self._counters.requests_late += 1
                self._end(newcomer, answer(http.HTTPStatus.REQUEST_TIMEOUT, "no request came\n"))
        self._timer = loop.call_later(LOOK, self._look) if self._under_way else None


def peer_of(transport: asyncio.BaseTransport) -> str | None:
    """The address at the other end; None for a unix socket or a closed one."""
    name = transport.get_extra_info("peername")
    return name[0] if isinstance(name, tuple) else None


def _send(transport: asyncio.Transport, response: Response) -> None:
    if not transport.is_closing():
        transport.write(response.serialize())
        transport.close()
