"""Histories: which namespaces have one, and how its entries are read. Pure.

The publishing scripts record every envelope of such a namespace in a stream, with the position of
its last message; ``history.lua`` says how. Positions count messages, in the epoch of the channel's
numbers.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import ceil
from typing import Any, Final, NamedTuple, Self

from cluster_pool.core.envelope import (
    ENVELOPE,
    EXCEPT,
    FROM,
    BrokenEnvelopeError,
    Header,
    read_header,
    read_items,
)
from cluster_pool.core.ids import check_namespace, shown
from cluster_pool.core.message import Message
from cluster_pool.core.patterns import matches
from cluster_pool.exceptions import InvalidValueError

MIB: Final = 1024 * 1024
LONGEST: Final = 86_400.0
"""Seconds that a history may reach back."""
LARGEST: Final = 2**40
"""Messages or bytes that a history may have."""

MARKS: Final = 16
"""A history is cut at each sixteenth of its messages, seconds or bytes."""
ENTRY_BYTES: Final = 100
"""Bytes that an entry of a stream counts for beyond its envelope."""
MOST: Final = 10_000
"""Messages that one call reads."""

HOLDS: Final = 120.0
"""Seconds that a setting stands if no node renews it, beyond those that the history has."""
RENEWALS: Final = 20
"""Heartbeats that it stands at least; nodes renew it within ten."""

PLAIN: Final = {other: kind for kinds in (EXCEPT, FROM) for kind, other in kinds.items()}
"""The other kinds of broadcasts, with those of their messages."""

ANYBODY: Final = "*"
NOBODY: Final = "-"
"""Readers of what is targeted at a member without a user."""

UNITS: Final = {"": 1, "KiB": 1024, "MiB": MIB, "GiB": 1024 * MIB}

_WRITTEN: Final = re.compile(
    r"(\d{1,13})(?:,(\d{1,6}(?:\.\d{1,3})?)(?:,(\d{1,13})(KiB|MiB|GiB)?)?)?(,targeted)?", re.ASCII
)
_TIME: Final = re.compile(rb"\d{1,15}")
_STORED: Final = re.compile(r"(\d{1,16}) (\d{1,13})", re.ASCII)
_BOUNDS: Final = re.compile(r"(\d{1,15}) (\d{1,15}) (\d{1,15})")


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """How much of the latest messages of a namespace is kept; each bound is at least 1.

    Attributes:
        messages: how many, at least the latest one.
        seconds: for how long, a day at most.
        bytes: how many in Redis, with about 100 for each envelope; of seconds and bytes a sixteenth
            more may be kept there. A message that is larger is kept alone.
        replay_targeted_without_user: whether an id without a user gets what was sent to it alone
            while it was away, from the next claim on, which anybody may have made. With users only
            a connection of the same one gets that, whatever this says.
    """

    messages: int = 1000
    seconds: float = 120.0
    bytes: int = 16 * MIB
    replay_targeted_without_user: bool = False

    def __post_init__(self) -> None:
        for name in ("messages", "bytes"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= LARGEST:
                raise InvalidValueError(
                    f"{name} must be an int from 1 to {LARGEST}, not {shown(value)}"
                )
        if type(self.seconds) not in (int, float) or not 1 <= self.seconds <= LONGEST:
            raise InvalidValueError(
                f"seconds must be a number from 1 to {LONGEST:.0f}, not {shown(self.seconds)}"
            )
        if type(self.replay_targeted_without_user) is not bool:
            raise InvalidValueError("replay_targeted_without_user must be True or False")


def rules_of(texts: Sequence[str]) -> dict[str, History]:
    """Rules from ``PATTERN=MESSAGES``, with ``,SECONDS`` and ``,BYTES`` behind them or not, and
    ``,targeted`` for ``replay_targeted_without_user``.

    Raises:
        InvalidValueError: one of them has another form, or a pattern is there twice.
    """
    rules: dict[str, History] = {}
    for text in texts:
        pattern, _, bounds = text.rpartition("=")
        found = _WRITTEN.fullmatch(bounds)
        if found is None or not pattern or pattern in rules:
            raise InvalidValueError(
                "a history must be PATTERN=MESSAGES, PATTERN=MESSAGES,SECONDS or "
                "PATTERN=MESSAGES,SECONDS,BYTES (with KiB, MiB or GiB behind them), with ,targeted "
                f"behind that or not, once for each pattern, not {shown(text)}"
            )
        messages, seconds, size, unit, targeted = found.groups()
        given: dict[str, Any] = {"messages": int(messages)}
        given["replay_targeted_without_user"] = targeted is not None
        if seconds is not None:
            given["seconds"] = float(seconds)
        if size is not None:
            given["bytes"] = int(size) * UNITS[unit or ""]
        rules[check_namespace(pattern)] = History(**given)
    return rules


def bounds_in(raw: bytes) -> History:
    """The bounds that a script has written: messages, milliseconds, bytes."""
    found = _BOUNDS.fullmatch(raw.decode())
    if found is None:
        raise BrokenEnvelopeError("history")
    messages, milliseconds, size = map(int, found.groups())
    return History(messages=messages, seconds=milliseconds / 1000, bytes=size)


class HistoryRules:
    """Which namespaces have a history: ``{"room:*": History()}``.

    In a pattern ``*`` stands for any text. Of the patterns that fit a namespace the longest counts,
    of equally long ones the first.

    Args:
        heartbeat: seconds between two heartbeats of this node, which renews the settings.

    Raises:
        InvalidNamespaceError, InvalidValueError: a pattern or its value is not allowed.
    """

    __slots__ = ("_heartbeat", "_rules")

    def __init__(self, rules: Mapping[str, History] | None, heartbeat: float) -> None:
        given = {} if rules is None else rules
        if not isinstance(given, Mapping):
            raise InvalidValueError(f"history must map patterns to History, not {shown(rules)}")
        for pattern, history in given.items():
            check_namespace(pattern)
            if not isinstance(history, History):
                raise InvalidValueError(
                    f"history of {shown(pattern)} must be a History, not {shown(history)}"
                )
        self._rules = sorted(given.items(), key=lambda rule: -len(rule[0]))
        self._heartbeat = heartbeat

    def __bool__(self) -> bool:
        return bool(self._rules)

    @property
    def shortest(self) -> float:
        """Seconds that each of them reaches back at least; 0 without any."""
        return min((history.seconds for _, history in self._rules), default=0.0)

    def of(self, namespace: str) -> History | None:
        """The history of a namespace; None if it has none. Those of users have none."""
        if namespace.startswith("~"):
            return None
        return next((history for one, history in self._rules if matches(one, namespace)), None)

    def asked(self, namespace: str) -> str:
        """The setting for scripts: messages, ms, bytes, for how many ms it stands; "" for none."""
        history = self.of(namespace) if self._rules else None
        if history is None:
            return ""
        age = ceil(history.seconds * 1000)
        holds = age + ceil(1000 * max(HOLDS, RENEWALS * self._heartbeat))
        return f"{history.messages} {age} {history.bytes} {holds}"

    def reader(self, namespace: str, user: str | None) -> str:
        """The reader of what is targeted at a member: a word for its user, ANYBODY or NOBODY."""
        if user is not None:
            return urlsafe_b64encode(sha256(user.encode()).digest()[:12]).decode()
        return ANYBODY if self.has_reader(namespace, None) else NOBODY

    def has_reader(self, namespace: str, user: str | None) -> bool:
        """Whether a reader may ever get what is targeted at a member."""
        if user is not None:
            return True
        history = self.of(namespace) if self._rules else None
        return history is not None and history.replay_targeted_without_user


class Position(NamedTuple):
    """A place in a history: that of a message, by the number and the epoch of its counter."""

    epoch: str
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.number}" if self.epoch else ""

    @classmethod
    def of(cls, told: str) -> Self | None:
        """Read what ``str()`` has made; None if it is no position."""
        return cls.parse(told.replace(".", " ", 1))

    @property
    def stored(self) -> str:
        """As scripts have it."""
        return f"{self.epoch} {self.number}"

    @classmethod
    def parse(cls, stored: object) -> Self | None:
        """Read what scripts have; None if it is no position."""
        found = _STORED.fullmatch(stored) if isinstance(stored, str) else None
        return cls(found[1], int(found[2])) if found else None

    def is_within(self, other: "Position") -> bool:
        """Whether a history that was read up to ``other`` has this message, or had it; one that is
        not recorded has none."""
        return self.epoch == other.epoch != "" and self.number <= other.number

    def is_beyond(self, other: "Position") -> bool:
        """Whether this message comes after ``other``, and all that follow it do."""
        if self.epoch == other.epoch:
            return self.number > other.number
        return int(self.epoch or 0) > int(other.epoch or 0)


NOWHERE: Final = Position("", 0)
"""The position where no history is recorded."""


LEFT: Final = "-"
"""In place of a position in Redis: the id has left by itself, and comes back as a newcomer."""


class Resumption(NamedTuple):
    """The findings of a claim in a namespace with a history.

    Attributes:
        last: the position of the last message before it.
        since: up to which the id has received everything; None for one that was not there lately.
        replaced: the claim of the id that this one has replaced; "" if none stood.
    """

    last: Position
    since: Position | None = None
    replaced: str = ""

    @classmethod
    def read(cls, text: bytes) -> Self | None:
        """Read what the claiming script says: "" where no history is recorded."""
        epoch, _, rest = text.decode().partition(" ")
        if not epoch:
            return None
        last, *stored = rest.split(" ")
        since = Position(stored[0], int(stored[1])) if stored else None
        return cls(Position(epoch, int(last)), since, *stored[2:])


@dataclass(frozen=True, slots=True)
class HistoryMessage:
    """A broadcast of the past.

    Attributes:
        position: its place in the history, for ``since``; nothing else can be read from it.
        message: ``str`` or ``bytes``, as it was sent.
        time: when Redis published it, in seconds since 1970 by the clock of Redis.
        id, user: of the client that published it (:meth:`ClusterPool.publish_from`), "" if none
            did, or has no user.
    """

    position: str
    message: Message
    time: float
    id: str = ""
    user: str = ""


class Entry(NamedTuple):
    """One entry of a stream: an envelope, and the time of Redis in ms at which it was published.

    Attributes:
        targeted: whether each item is an id, its reader, and what is targeted at the id; behind
            these True, if it was parked, and published to nobody. Else it was published.
    """

    time: int
    header: Header
    payload: bytes
    items_offset: int
    targeted: bool = False

    @classmethod
    def read(cls, id: bytes, fields: list[bytes]) -> Self | None:
        """Read the id and the fields of an entry; None if our scripts have not written it there."""
        named = dict(zip(fields[::2], fields[1::2], strict=False))
        time, targeted = named.get(b"t", b""), b"i" in named
        payload = named.get(b"i" if targeted else b"e", b"")
        if not _TIME.fullmatch(time) or payload[:2] != ENVELOPE:
            return None
        try:
            header, at = read_header(payload)
        except BrokenEnvelopeError:
            return None
        if id != b"%d-0" % header.position:
            return None
        return cls(int(time), header, payload, at, targeted)

    @property
    def places(self) -> tuple[int, int]:
        """The number before its first message, and that of its last."""
        return self.header.position - self.header.messages, self.header.position

    def placed(self) -> Iterator[tuple[Position, list[Any]]]:
        """Its items, each with its position; BrokenEnvelopeError for one that cannot be read."""
        header = self.header
        first = header.position - header.messages + 1
        for number, item in enumerate(read_items(self.payload[self.items_offset :]), first):
            yield Position(header.counter_epoch, number), item


def check_last(value: object) -> int:
    """How many of the last messages to read; raises InvalidValueError for none or too many."""
    if type(value) is not int or not 1 <= value <= MOST:
        raise InvalidValueError(f"last must be an int from 1 to {MOST}, not {shown(value)}")
    return value


def check_offer(since: str | None, resume: str | None) -> None:
    """Check what a client gives; raises InvalidValueError: no position, or one without a word."""
    Wish.of(None, since, resume)
    if since and not resume:
        raise InvalidValueError("since needs the resume that came with the welcome, or the join")


class Wish(NamedTuple):
    """The messages of the past that a newcomer is to get.

    Attributes:
        last: how many of the last broadcasts, if its id was not there lately; 0 for none.
        since: all behind this position; None: behind what is known of its id.
        resume: the word with which its client gives this position; "": the application does.
    """

    last: int = 0
    since: Position | None = None
    resume: str = ""

    @classmethod
    def of(cls, rewind: object, since: object, resume: object = None) -> Self:
        """Check what a call asks for; None for neither, and "" for a history that was not recorded.

        Raises InvalidValueError: it is no number from 1 to 10,000, no position, or no text.
        """
        place = Position.of(since) if isinstance(since, str) else None
        if place is None and since not in (None, ""):
            raise InvalidValueError(f"since must be a position of a history, not {shown(since)}")
        if resume is not None and not isinstance(resume, str):
            raise InvalidValueError(f"resume must be a str, not {shown(resume)}")
        return cls(0 if rewind is None else check_last(rewind), place, resume or "")


NO_WISH: Final = Wish()
"""Go on with what is known of the id."""
