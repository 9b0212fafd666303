"""A node of a contender while it runs, and what a call to it can come to."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

SEND, BROADCAST = KINDS = ("send", "broadcast")

RETURNED = "returned"
"""The call returned, and its answer promised delivery as far as this contender ever does."""
UNHEARD = "unheard"
"""The call returned, and said that nobody listened."""
NOT_SENT = "not sent"
"""The call raised or answered something that says: certainly not carried out."""
UNKNOWN = "unknown"
"""The call raised something that leaves it open whether it was carried out."""
UNANSWERED = "unanswered"
"""The call had neither returned nor raised long after the end."""


@dataclass(frozen=True)
class Served:
    """Where its WebSockets connect, each with its id as ``?id=``, and how messages are sent.

    Attributes:
        to_all: sends to every connection of every node; gives an outcome, or raises for UNKNOWN.
        to_one: the same, to the connection with this id; None where nobody has an id.
        reported: messages that the library reports as missing, by kind.
    """

    port: int
    to_all: Callable[[str], Awaitable[str]]
    to_one: Callable[[str, str], Awaitable[str]] | None = None
    reported: Counter[str] = field(default_factory=Counter)


def tuning(tuned: bool) -> dict[str, Any]:
    """The options of redis-py against bad links.

    The retry policy is that of a plain ``Redis()``, which one that is made from a URL lacks.
    """
    if not tuned:
        return {}
    return {"retry": Redis().get_retry(), "health_check_interval": 1, "socket_keepalive": True}
