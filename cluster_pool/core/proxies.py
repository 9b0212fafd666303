"""The address of a client, from the headers of trusted proxies.

Any client can send these headers. An entry counts only if the proxy that wrote it is named: the one
that the request comes from, then the one that it names, and so on.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

from cluster_pool.core.ids import shown
from cluster_pool.exceptions import InvalidValueError

ALL: Final = "*"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxies:
    """The proxies that are trusted.

    Args:
        named: IP addresses and networks (``10.0.0.0/8``), separated by commas or one by one;
            ``*`` trusts every address, None or an empty list none.

    Raises:
        InvalidValueError: one of them is neither.
    """

    __slots__ = ("_all", "_networks")

    def __init__(self, named: str | Iterable[str] | None = None) -> None:
        given = [named] if isinstance(named, str) else list(named or ())
        names = [name for one in given for name in one.replace(",", " ").split()]
        self._all = ALL in names
        self._networks = [_network(name) for name in names if name != ALL]

    def trust(self, peer: str | None) -> bool:
        """Whether a peer, None for one without an address, was named."""
        return self._all or (self._networks != [] and self._names(_address(peer or "")))

    def client(self, peer: str | None, forwarded_for: Sequence[str]) -> str | None:
        """The address of the client: the rightmost that is no trusted proxy's, as in uvicorn.

        Each proxy adds the address that its request came from at the end. If all are trusted, the
        leftmost is the client. An entry that is no address ends the search: then the client is the
        proxy that wrote it.

        Args:
            peer: the address that the request comes from; None when there is none.
            forwarded_for: every value of the header ``X-Forwarded-For``.
        """
        if not self.trust(peer):
            return peer
        client = peer
        for entry in reversed(",".join(forwarded_for).split(",")):
            address = _address(_without_port(entry.strip()))
            if address is None:
                break
            client = str(address)
            if not self._all and not self._names(address):
                break
        return client

    def hosts(
        self, peer: str | None, hosts: Sequence[str], forwarded: Sequence[str]
    ) -> Sequence[str]:
        """The host that the client asked for: from a trusted proxy, else from ``Host``.

        Args:
            hosts, forwarded: every value of ``Host`` and of ``X-Forwarded-Host``.
        """
        return forwarded if forwarded and self.trust(peer) else hosts

    def _names(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


def _network(name: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(name)
    except ValueError as error:
        raise InvalidValueError(
            f"no address or network of a proxy: {shown(name)}: {error}"
        ) from None


def _address(text: str) -> Address | None:
    """The address without a zone, which is any text and has a meaning on one machine only."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    # A socket for both kinds gives IPv4 addresses mapped.
    return address.ipv4_mapped or ipaddress.IPv6Address(int(address))


def _without_port(entry: str) -> str:
    """``1.2.3.4:80`` and ``[::1]:80`` as addresses; anything else as it is."""
    if entry.startswith("["):
        host, bracket, port = entry[1:].partition("]")
        return host if bracket and (not port or port.startswith(":")) else entry
    return entry.partition(":")[0] if entry.count(":") == 1 else entry
