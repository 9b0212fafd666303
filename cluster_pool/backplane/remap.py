"""Maps the addresses that servers announce to those by which this process reaches them.

Sentinels and the nodes of a cluster announce addresses of their own network. From outside of a NAT
or of containers these cannot be reached.
"""

from collections.abc import Callable
from typing import Final

from cluster_pool.backplane.urls import Where, place_of
from cluster_pool.core.ids import shown
from cluster_pool.exceptions import InvalidValueError

Remap = Callable[[Where], Where]
"""As ``address_remap`` of redis-py: maps an announced host and port to those to use."""

ANY: Final = "*"
"""Matches every host."""
_SAME: Final = 0
"""The port is what it was."""


def unchanged(where: Where) -> Where:
    """Use the announced address."""
    return where


def read_remap(text: str) -> Remap:
    """Read ``172.18.0.2:6379=127.0.0.1:7001,172.18.0.3=redis-3``: ANNOUNCED=USED, with commas.

    Without a port, an entry matches any port and keeps it; ``*`` matches every host. The first
    entry that matches is used; an address without one stays unchanged.

    Raises:
        InvalidValueError: for an entry that cannot be read.
    """
    entries = [_entry(one) for one in text.split(",")]

    def remap(where: Where) -> Where:
        host, port = where
        for (old_host, old_port), (new_host, new_port) in entries:
            if old_host in (ANY, host) and old_port in (_SAME, port):
                return new_host, new_port or port
        return where

    return remap


def _entry(text: str) -> tuple[Where, Where]:
    old, _, new = text.partition("=")
    announced, used = place_of(old, _SAME), place_of(new, _SAME)
    if announced is None or used is None or used[0] == ANY:
        raise InvalidValueError(
            f"address_remap: {shown(text, 200)} is not ANNOUNCED=USED, with HOST or HOST:PORT on "
            "both sides"
        )
    return announced, used
