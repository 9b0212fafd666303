"""The methods of both pools; code written for one works with the other."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from cluster_pool.core.message import Message
from cluster_pool.core.results import Delivery, DrainReport, SendResult
from cluster_pool.local.connection import Connection

EmptyCallback = Callable[[], Any]
"""No argument; sync or async."""


class Pool(Protocol):
    """Membership, targeted sends, broadcasts, closing and draining.

    Messages from one sender to one connection arrive in order and at most once; results say what
    happened. Bad input raises InvalidValueError before anything is done.
    """

    async def new_connection(self, connection: Connection) -> None:
        """Make a connection a member."""

    async def remove_connection(
        self, connection: Connection, on_empty_namespace: EmptyCallback | None = None
    ) -> None:
        """End its membership; the callback runs when that was the namespace's last member."""

    async def send(self, namespace: str, id: str, message: Message) -> SendResult:
        """Send one message to one member."""

    async def send_json(self, namespace: str, id: str, value: Any) -> SendResult:
        """The same with JSON text."""

    async def send_then_close(
        self, namespace: str, id: str, message: Message, code: int = 1000, reason: str = ""
    ) -> SendResult:
        """Send one message to one member and close its connection behind it."""

    async def send_json_then_close(
        self, namespace: str, id: str, value: Any, code: int = 1000, reason: str = ""
    ) -> SendResult:
        """The same with JSON text."""

    async def broadcast_message(
        self, namespace: str, message: Message, exclude: Iterable[str] = ()
    ) -> int:
        """Send one message to every member but the excluded ids."""

    async def broadcast_json_message(
        self, namespace: str, value: Any, exclude: Iterable[str] = ()
    ) -> int:
        """The same with JSON text."""

    async def close(
        self, namespace: str, id: str, code: int = 1000, reason: str = ""
    ) -> SendResult:
        """Close one member's connection."""

    async def close_all(self, namespace: str, code: int = 1000, reason: str = "") -> int:
        """Close every member's connection."""

    async def send_user(self, user: str, message: Message) -> Delivery:
        """Send one message to all connections of a user."""

    async def online(self, users: Iterable[str]) -> dict[str, int]:
        """How many connections each of some users has."""

    async def close_user(self, user: str, code: int = 1000, reason: str = "") -> int:
        """Close all connections of a user."""

    async def drain_connections(
        self, max_per_second: float | None = None, message: Message = "", code: int = 1012
    ) -> DrainReport:
        """Accept no newcomers, and close all connections at a pace."""

    async def join(
        self,
        namespace: str,
        id: str,
        joined: str,
        *,
        as_id: str | None = None,
        on_conflict: str | None = None,
    ) -> SendResult:
        """Have one member's connection join one more namespace."""

    async def leave(self, namespace: str, id: str, left: str) -> SendResult:
        """Have one member's connection leave a namespace."""

    async def remove_all(self, namespace: str) -> int:
        """End every membership of a namespace; close only connections whose home it is."""

    def get_connection(self, namespace: str, id: str) -> Connection | None:
        """This process's connection with an id."""

    def has_namespace(self, namespace: str) -> bool:
        """Whether this process has members in a namespace."""

    def statistics(self) -> dict[str, Any]:
        """Counters and sizes of this process."""
