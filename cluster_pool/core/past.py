"""The messages of a history as their readers get them. Pure."""

from typing import Any, NamedTuple

from cluster_pool.core.config import COUNTLESS
from cluster_pool.core.envelope import EXCEPT, FROM, TEXT, BrokenEnvelopeError
from cluster_pool.core.history import NOBODY, PLAIN, Position
from cluster_pool.core.ids import check_id, check_user
from cluster_pool.core.message import Message, Outgoing, PublishedMessage, encode
from cluster_pool.exceptions import InvalidValueError


class Reader(NamedTuple):
    """The reader of a history: an id and a user, each None for none.

    Attributes:
        word: by which it reads what is targeted at its id; see :meth:`HistoryRules.reader`.
    """

    id: str | None = None
    user: str | None = None
    word: str = NOBODY


class Broadcast(NamedTuple):
    """A broadcast as it was sent: the message, and the client that published it, if one did."""

    message: Message
    id: str = ""
    user: str = ""


def leaves_out(reader: Reader, item: list[Any]) -> bool:
    """Whether a broadcast excludes a reader. One that a client has published excludes nobody."""
    if item[0] in FROM.values():
        return False
    return reader.id in item[2] or (item[0] in EXCEPT.values() and reader.user in item[3])


def outgoing_of(namespace: str, position: Position, found: Broadcast) -> Outgoing:
    """A message of the past as members got it."""
    source, encoded = (namespace, *position), encode(found.message, COUNTLESS)
    if found.id:
        return PublishedMessage(*encoded, source, (found.id, found.user))
    return Outgoing(*encoded, source)


def broadcast_for(reader: Reader, item: list[Any]) -> Broadcast | None:
    """The broadcast of an item; None if it is none, or one that leaves the reader out.

    Raises:
        BrokenEnvelopeError: it cannot be read.
    """
    try:
        kind = PLAIN.get(item[0], item[0])
        if kind not in EXCEPT:
            return None
        if leaves_out(reader, item):
            return None
        author: tuple[str, ...] = ()
        if item[0] in FROM.values():
            author = check_id(item[2]), check_user(item[3]) if item[3] else ""
        payload = item[1]
        if isinstance(payload, bytes):
            return Broadcast(payload.decode() if kind == TEXT else payload, *author)
    except (LookupError, TypeError, UnicodeDecodeError, InvalidValueError) as error:
        raise BrokenEnvelopeError("content") from error
    raise BrokenEnvelopeError("content")
