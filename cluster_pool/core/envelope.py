"""The messages between nodes, byte for byte; docs/redis-protocol.md describes them for others.

An envelope is ``0xC1 0x01``, a header in ASCII up to a newline, and a msgpack stream of items::

    epoch SP number SP messages SP start SP generation [SP position] LF  item item item …

``epoch`` and ``number`` are of the channel's own counter of messages, written by the publishing
script: this envelope has ``messages`` of them, the last of which has ``number`` (probes, replies
and takeovers are no messages). ``start`` names one start of one sender, ``generation`` counts its
connections to Redis; ``position`` is that of the last message in the history of the namespace, if
it has one. Nothing here reads a user's payload.

On the channel of a namespace an item is ``[kind, …]``. On the channel of a node it is
``[claim, [kind, …]]``, with the claim of the id by which the registry routed it (empty if it is
about no id).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgpack

from cluster_pool.core.ids import MAX_EXCLUDE, check_node_id
from cluster_pool.core.message import Author
from cluster_pool.core.results import SendResult

MARK: Final = 0xC1
"""Neither UTF-8 nor msgpack can begin with this byte."""
RAW_BINARY: Final = b"\xc1\x00"
ENVELOPE: Final = b"\xc1\x01"
UNCOUNTED: Final = "0"
"""In place of an epoch: the channel has no counter, since no message was published there lately."""
MAX_HEADER: Final = 128
HEADER: Final = re.compile(
    rb"(\d{1,17}) (\d{1,16}) (\d{1,9}) ([!-~]{1,40}) (\d{1,9})(?: (\d{1,16}))?\n"
)
MAX_ITEMS: Final = 1_000
MAX_LISTS: Final = 8
"""Lists in one item, itself included; a megabyte of empty lists would need seventy of memory."""
RECEIPT_ITEM: Final = 7
"""Fields of a message or a close for which a receipt of the client is wanted."""
MAX_RECEIPT_MS: Final = 3_600_000
SMALL_ITEM: Final = 4096
"""Bytes of an item whose lists are not counted: they need a quarter of a megabyte at most."""

TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 3
REPLY: Final = 4
CLOSE_ALL: Final = 6
TAKEN: Final = 7
COMMAND: Final = 10
ANSWER: Final = 11
QUESTION: Final = 12
JOIN: Final = 13
LEAVE: Final = 14
REMOVE_ALL: Final = 15
PLACE: Final = 20
TALLY: Final = 21
EXCEPT: Final = {TEXT: 16, BINARY: 17}
"""8 and 9 are seals. EXCEPT: broadcasts that exclude users, by the kind of their messages."""
FROM: Final = {TEXT: 18, BINARY: 19}
"""Broadcasts that a client has published, by the kind of their messages."""

TAKEN_ITEM: Final = bytes((0x93, TAKEN))
"""The first bytes of an item that tells of a takeover; the claiming scripts write it."""

RESULT_CODES: Final = {result: number for number, result in enumerate(SendResult)}
RESULTS: Final = dict(enumerate(SendResult))


class BrokenEnvelopeError(ValueError):
    """Bytes begin like an envelope and are none.

    Attributes:
        kind: a short word for the log.
        count: the parts of a payload that are broken.
    """

    def __init__(self, kind: str, count: int = 1) -> None:
        super().__init__(kind)
        self.kind = kind
        self.count = count


class Header(NamedTuple):
    """The header of an envelope.

    Attributes:
        counter_epoch, number: the mark of its last message, by its channel's counter.
        messages: how many of its items are messages.
        sender_start: the start of the node or publisher that sent it.
        generation: the number of the sender's connection to Redis.
        position: that of its last message in the history; 0 if none is recorded.
    """

    counter_epoch: str
    number: int
    messages: int
    sender_start: str
    generation: int
    position: int = 0


class ReplyTo(NamedTuple):
    """The address for an owner's answer: the node id, the number of the request, the start.

    Another process or a restart may use the same node id and number, but not the same start.
    """

    node: str
    request: int
    start: str

    @classmethod
    def read(cls, fields: object) -> "ReplyTo | None":
        """Read it from an item; None when no answer is awaited; BrokenEnvelopeError for others."""
        match fields:
            case []:
                return None
            case [str(node), int(request), str(start)]:
                return cls(check_node_id(node), request, start)
        raise BrokenEnvelopeError("reply address")


pack: Final[Callable[[object], bytes]] = msgpack.Packer(use_bin_type=True, autoreset=True).pack
"""Encodes one msgpack object."""


def read_header(payload: bytes) -> tuple[Header, int]:
    """The header and the index at which the items begin."""
    found = HEADER.match(payload, 2, MAX_HEADER)
    if found is None:
        raise BrokenEnvelopeError("header")
    epoch, number, count, start, generation, position = found.groups(b"0")
    header = Header(
        epoch.decode(), int(number), int(count), start.decode(), int(generation), int(position)
    )
    if header.messages > header.number or 0 < header.position < header.messages:
        raise BrokenEnvelopeError("header")
    return header, found.end()


def empty_envelope(sender: str) -> bytes:
    """An envelope without a counter and without items, as a probe is one.

    Args:
        sender: ``start SP generation``.
    """
    return ENVELOPE + f"{UNCOUNTED} 0 0 {sender}\n".encode()


def read_items(body: bytes) -> Iterator[list[Any]]:
    """The items, one after another; raises BrokenEnvelopeError at the first invalid one.

    A body that is cut off or has more than MAX_ITEMS yields nothing. A list has at most MAX_EXCLUDE
    elements. If any item is larger than SMALL_ITEM, each item has at most MAX_LISTS lists; in other
    bodies they are not counted, since that takes longer than all the rest.
    """
    lists = 0

    def count_lists(made: list[Any]) -> list[Any]:
        nonlocal lists
        lists += 1
        if lists > MAX_LISTS:
            raise BrokenEnvelopeError("lists")
        return made

    longest = _longest(body)
    unpacker = msgpack.Unpacker(
        max_buffer_size=len(body) + 1,
        max_array_len=MAX_EXCLUDE,
        max_map_len=0,
        max_ext_len=0,
        max_str_len=64 * 1024,
        list_hook=count_lists if longest > SMALL_ITEM else None,
    )
    unpacker.feed(body)
    try:
        for item in unpacker:
            if not isinstance(item, list) or not item:
                raise BrokenEnvelopeError("item")
            yield item
            lists = 0
    except BrokenEnvelopeError:
        raise
    except Exception as error:
        raise BrokenEnvelopeError("msgpack") from error


def _longest(body: bytes) -> int:
    """Bytes of the longest item; raises BrokenEnvelopeError for more than MAX_ITEMS, or a torn one.

    Nothing is built here: msgpack allocates a list by the length that it claims, and three bytes
    can claim 80 KB, a thousand times in one body.
    """
    walker = msgpack.Unpacker(max_buffer_size=len(body) + 1)
    walker.feed(body)
    read = longest = 0
    try:
        for _ in range(MAX_ITEMS + 1):
            walker.skip()
            end = walker.tell()
            if end - read > longest:
                longest = end - read
            read = end
    except msgpack.OutOfData:
        if read != len(body):
            raise BrokenEnvelopeError("cut off") from None
        return longest
    except Exception as error:
        raise BrokenEnvelopeError("msgpack") from error
    raise BrokenEnvelopeError("items")


def targeted(
    text: bool,
    namespace: str,
    id: str,
    payload: bytes,
    *,
    close: tuple[int, str] | None = None,
    reply: ReplyTo | None = None,
    receipt_ms: int = 0,
) -> bytes:
    """One message for one member; with ``close``, the connection is closed behind it.

    With ``receipt_ms`` the owner replies when the client has received it, or within so many
    milliseconds not at all. Nodes of earlier versions reply at once.
    """
    kind = TEXT if text else BINARY
    if close is None and reply is None:
        return pack((kind, namespace, id, payload))
    last = (receipt_ms,) if receipt_ms else ()
    return pack((kind, namespace, id, payload, close or (), reply or (), *last))


def close_one(
    namespace: str,
    id: str,
    code: int,
    reason: str,
    reply: ReplyTo | None,
    *,
    receipt_ms: int = 0,
) -> bytes:
    """Close one member; ``receipt_ms`` as for a message."""
    last = (receipt_ms,) if receipt_ms else ()
    return pack((CLOSE, namespace, id, code, reason, reply or (), *last))


def receipt_ms(item: Sequence[Any]) -> int:
    """In how many milliseconds a receipt is wanted for a message or a close; 0 for none.

    Raises:
        BrokenEnvelopeError: it says something else.
    """
    if len(item) < RECEIPT_ITEM:
        return 0
    wanted = item[RECEIPT_ITEM - 1]
    if type(wanted) is not int or not 0 < wanted <= MAX_RECEIPT_MS:
        raise BrokenEnvelopeError("receipt")
    return wanted


def question(namespace: str, id: str, to: ReplyTo) -> bytes:
    """Ask the owner of an id for a sign of life of its client.

    It replies DELIVERED when there is one, and ABSENT when it has given the id up.
    """
    return pack((QUESTION, namespace, id, to))


def join(
    namespace: str, id: str, joined: str, as_id: str, on_conflict: str, to: ReplyTo | None
) -> bytes:
    """Have the connection of a member join a namespace; "" for its own id, or its pool's rule.

    The owner replies DELIVERED when it has joined, and REFUSED when it has not.
    """
    return pack((JOIN, namespace, id, joined, as_id, on_conflict, to or ()))


def leave(namespace: str, id: str, left: str, to: ReplyTo | None) -> bytes:
    """Have the connection of a member leave a namespace; the owner replies as to a join."""
    return pack((LEAVE, namespace, id, left, to or ()))


def place(namespace: str, id: str, former: str, position: str) -> bytes:
    """The owner of a former claim tells that of the present one up to where the id has received
    the history: "epoch number"."""
    return pack((PLACE, namespace, id, former, position))


def broadcast(
    text: bool,
    payload: bytes,
    exclude: Iterable[str] = (),
    users: Sequence[str] = (),
    request: Sequence[object] = (),
) -> bytes:
    """One message for every member of the channel's namespace, except some ids and some users.

    Args:
        request: fields of a :class:`.TallyRequest`. Nodes of earlier versions do not read them.
    """
    kind = TEXT if text else BINARY
    if users:
        return pack((EXCEPT[kind], payload, tuple(exclude), tuple(users), *request))
    return pack((kind, payload, tuple(exclude), *request))


def published(text: bool, payload: bytes, author: Author) -> bytes:
    """One message of a client for every member of the channel's namespace."""
    return pack((FROM[TEXT if text else BINARY], payload, *author))


def close_all(code: int, reason: str) -> bytes:
    """Close every member of the channel's namespace."""
    return pack((CLOSE_ALL, code, reason))


def remove_all() -> bytes:
    """End every membership of the channel's namespace, and close no connection for it."""
    return pack((REMOVE_ALL,))


def reply(to: ReplyTo, result: SendResult) -> bytes:
    """The owner's answer, for the channel of the node that asked."""
    return pack((REPLY, to.request, RESULT_CODES[result], to.start))


def command(verb: str, options: Mapping[str, object], to: ReplyTo) -> bytes:
    """An order about its drain to a node, for its own channel."""
    return pack((COMMAND, verb, [part for pair in options.items() for part in pair], to))


def answer(to: ReplyTo, refusal: str) -> bytes:
    """A node's answer to an order: "" when it was executed, or why not."""
    return pack((ANSWER, to.request, refusal, to.start))


def unrouted(item: bytes) -> bytes:
    """An item for the channel of a node that is about no claim."""
    return b"\x92\xa0" + item


def raw_message(payload: bytes) -> tuple[bool, bytes]:
    """A user's own PUBLISH as a message: whether it is text, and the payload.

    Valid UTF-8 is text, other bytes are binary; bytes behind 0xC1 0x00 are always binary.
    """
    if payload[:2] == RAW_BINARY:
        return False, payload[2:]
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False, payload
    return True, payload
