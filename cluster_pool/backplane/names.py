"""Looks up host names in a thread of its own, one look-up at a time.

A resolver may hang. Then it blocks one daemon thread of ours and not the event loop's executor;
other look-ups of the same address wait for the one under way.
"""

import asyncio
import concurrent.futures
import ipaddress
import os
import socket
import threading
from time import monotonic
from typing import Any, Final

import redis.asyncio as redis_asyncio

FRESH: Final = 1.0
"""Seconds for which an answer is used again: both sockets of a generation need it."""

HANDSHAKE: Final = 0.9
"""The part of a time-out that TLS may take, so that its end comes first."""
SHUTDOWN: Final = 1.0
"""Seconds to wait for the other side's part of a close."""

Where = tuple[str, int]
Answer = concurrent.futures.Future[list[str]]


class Names:
    """The look-ups of one address. It may be used in several event loops, and after a fork."""

    def __init__(self) -> None:
        self._asked: tuple[Where, Answer] | None = None
        self._process = os.getpid()
        self._known: dict[Where, tuple[float, list[str]]] = {}
        self._lock = threading.Lock()

    @property
    def asking(self) -> str:
        """The host that is being looked up; "" while none is."""
        asked = self._asked
        return asked[0][0] if asked is not None and not asked[1].done() else ""

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host, in the order of preference.

        Raises OSError when there is none. Cancelling does not end the look-up: the next call uses
        it.
        """
        if not host or _is_address(host):
            return [host]
        where = (host, port)
        while True:
            asked, answer = self._ask(where)
            try:
                found = await asyncio.wrap_future(answer)
            except OSError:
                if asked == where:
                    raise
            else:
                if asked == where:
                    return found

    def forget(self) -> None:
        """Forget the addresses, which did not work: the next call looks them up again."""
        self._known.clear()

    def _ask(self, where: Where) -> tuple[Where, Answer]:
        """The look-up that is under way, even if of another host, or a new one."""
        with self._lock:
            if self._process != os.getpid():  # the thread has stayed in the parent
                self._asked, self._process = None, os.getpid()
            if self._asked is not None and not self._asked[1].done():
                return self._asked
            answer: Answer = concurrent.futures.Future()
            until, found = self._known.get(where, (0.0, []))
            if monotonic() < until:
                answer.set_result(found)
                return where, answer
            answer.set_running_or_notify_cancel()  # from here on it cannot be cancelled
            self._asked = where, answer
        threading.Thread(
            target=self._look_up, args=(where, answer), name="cluster_pool names", daemon=True
        ).start()
        return where, answer

    def _look_up(self, where: Where, answer: Answer) -> None:
        try:
            found = socket.getaddrinfo(*where, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        except OSError as error:
            answer.set_exception(error)
        except Exception as error:  # a name that IDNA cannot encode
            answer.set_exception(OSError(f"the name {where[0]!r} cannot be looked up: {error}"))
        else:
            self._known = {where: (monotonic() + FRESH, addresses)}
            answer.set_result(addresses)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class _Resolved:
    """A connection of redis-py that gets addresses from :class:`Names`, not from its loop.

    A mixin: ``host`` stays the name, for TLS and for errors.
    """

    names: Names
    host: str
    port: int
    socket_connect_timeout: float
    _address = ""

    async def _connect(self) -> None:
        failure: OSError | None = None
        for address in await self.names.addresses(self.host, self.port):
            self._address = address
            try:
                return await super()._connect()  # type: ignore[misc,no-any-return]  # a mixin
            except OSError as error:
                failure = error
        self.names.forget()
        raise failure or OSError(f"no address of {self.host}")

    def _connection_arguments(self) -> dict[str, Any]:
        arguments = {**super()._connection_arguments(), "host": self._address}  # type: ignore[misc]  # too
        if "ssl" in arguments:
            arguments["server_hostname"] = self.host
            arguments |= tls_times(self.socket_connect_timeout)
        return arguments


def tls_times(seconds: float) -> dict[str, Any]:
    """Options of a TLS connection that must be open after ``seconds``, or be given up as a whole.

    A handshake that is cancelled in place of that, and a close without an answer of the other side,
    leave their socket open for half a minute.
    """
    return {"ssl_handshake_timeout": seconds * HANDSHAKE, "ssl_shutdown_timeout": SHUTDOWN}


def resolving(kind: type[Any], names: Names) -> type[Any]:
    """The same class of connections, with names looked up by ``names``, if it connects by TCP.

    A class that connects in a way of its own is returned unchanged.
    """
    if getattr(kind, "_connect", None) is not redis_asyncio.Connection._connect:
        return kind
    return type(kind.__name__, (_Resolved, kind), {"names": names})
