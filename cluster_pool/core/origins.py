"""Which pages may open a WebSocket: the rule for the header ``Origin``, the same for every library.

The same-origin policy does not apply to WebSockets: any page may open one, with the user's cookies,
also to a server on loopback. But the browser sends the origin of the page (RFC 6455 section 10.2).
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final

from cluster_pool.core.ids import shown
from cluster_pool.exceptions import InvalidValueError

ALL: Final = "*"
OPAQUE: Final = "null"
"""Sent by browsers for a page that has no origin: a file, a frame in a sandbox."""
SYNTAX: Final = "SCHEME://HOST or SCHEME://HOST:PORT, null, or * for all"

_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_ORIGIN: Final = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://([^/]*)")
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9._-]+)(?::([0-9]{1,5}))?")

Place = tuple[str, int | None]
"""A host in lower case, and its port."""


class Origins:
    """The allowed origins: the host that a page connects to, and those named.

    Args:
        named: origins that are allowed besides the same one: ``https://app.example``,
            ``http://localhost:3000`` (without a port the scheme's default is meant), ``null``, or
            ``*`` for all. None or none of them: the same origin alone.

    Raises:
        InvalidValueError: one of them is no origin.
    """

    __slots__ = ("_all", "_named")

    def __init__(self, named: Iterable[str] | None = None) -> None:
        if isinstance(named, str):
            raise InvalidValueError(f"origins must be a list of str, not the str {shown(named)}")
        names = list(named or ())
        self._all = ALL in names
        self._named = {_checked(name) for name in names if name != ALL}

    def allow(self, origins: Sequence[str], hosts: Sequence[str]) -> bool:
        """Whether a handshake with these headers may go on.

        A request without an Origin is not from a page, and is allowed. Several values, or one that
        cannot be read, are foreign. A missing port, on either side, is the default of the Origin's
        scheme: behind a proxy that speaks TLS only the Origin has the right scheme.

        Args:
            origins: every value of the header ``Origin``.
            hosts: every value of the header ``Host``, or those of a trusted proxy in its place.
        """
        if not origins or self._all:
            return True
        if len(origins) != 1:
            return False
        origin = _origin(origins[0])
        if origin is None:
            return False
        if origin in self._named:
            return True
        scheme, place = origin
        if scheme not in _PORTS or len(hosts) != 1:
            return False
        return place == _place(hosts[0], _PORTS[scheme])


def remedy(origins: Sequence[str]) -> str:
    """The value of ``--origin`` that would have allowed a handshake."""
    readable = len(origins) == 1 and _origin(origins[0]) is not None
    return shown(origins[0], 300) if readable else f"'{ALL}' (it is no origin that can be named)"


def _checked(name: object) -> tuple[str, Place]:
    origin = _origin(name) if isinstance(name, str) else None
    if origin is None:
        raise InvalidValueError(f"no origin: {shown(name)}; it must be {SYNTAX}")
    return origin


def _origin(text: str) -> tuple[str, Place] | None:
    """Scheme, host and port of an origin; None if it is none."""
    if text == OPAQUE:
        return OPAQUE, ("", None)
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme = match[1].lower()
    place = _place(match[2], _PORTS.get(scheme))
    return None if place is None else (scheme, place)


def _place(text: str, default_port: int | None) -> Place | None:
    """Host and port; None if there is a user, or it is no host by RFC 3986 section 3.2.2.

    Only the case of a name is changed: for a browser ``a.example.`` is not ``a.example``.
    """
    match = _HOST.fullmatch(text)
    if match is None:
        return None
    host, port = match[1].lower(), default_port if match[2] is None else int(match[2])
    if port is not None and port > 65535:
        return None
    if host.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1])}]", port
        except ValueError:
            return None
    return host, port
