"""Receipts: what the WebSocket stack of a client has, as it shows without knowing it.

TCP keeps the order, and a WebSocket stack answers pings in order. So a Pong with the payload of our
Ping says that everything written before the Ping is in the stack of the client. An answered Close
says it of everything. Nothing is kept for a connection of which no receipt was ever wanted.

A payload is a number that is never used twice and begins at a random one: Pongs that are old, of
the future, unasked (RFC 6455 section 5.5.3 permits these) or garbage match none.
"""

import secrets
from collections.abc import Callable
from itertools import count, islice
from typing import Any, Final, NamedTuple, Protocol

from cluster_pool.core.message import Outgoing
from cluster_pool.core.results import SendResult

Tell = Callable[[SendResult], None]
Waiter = tuple[float, Tell]
"""Until when a receipt is wanted, on the clock of the loop, and who is told of it."""

MOST_WAITING: Final = 10_000
"""Receipts of one connection that may be awaited; for further ones the answer is DELIVERED."""
MOST_PINGS: Final = 16
"""Pings of one connection that may be unanswered; further messages then share the next one."""
PAYLOAD_BYTES: Final = 8
MANY_MESSAGES: Final = 100
MANY_BYTES: Final = 65536
"""An account asks for a receipt after so much, and waits for the keepalive's ping with less."""
PAUSE: Final = 1.0
"""Seconds between two pings that an account asks for by itself, at least."""

_numbers = count(secrets.randbits(60))


class Mark(NamedTuple):
    """A place in what is sent to a connection: messages, and bytes of their payloads."""

    messages: int
    bytes: int


class Account(Protocol):
    """An account of what a client has received, in words of the one who keeps it.

    Attributes:
        recovered: see :attr:`.Connection.recovered`.
    """

    recovered: bool | None

    def written(self) -> Any:
        """A word for all that is written now."""

    def closing(self, *, opened: bool) -> None:
        """A close begins: nothing that comes from now on is written.

        Args:
            opened: whether its handshake was answered.
        """

    def received(self, written: Any) -> None:
        """The client has all for which this word stands."""

    def over(self) -> None:
        """Nothing more will come of the client."""


class Receipts:
    """The account of one connection, the receipts that are awaited, and the unanswered pings.

    Args:
        ping: has a ping sent soon. It must not hold the connection: the WebSocket holds this.

    Attributes:
        account: is told what is received, if one is kept.
        clock: that of the loop, if an account is kept; then it asks for receipts by itself.
        closing: whether a Close of ours went behind all that was written.
        closed_at: the account's word for what was written before that Close.
        received: what the client has received, as far as that was shown.
        over: whether nothing more will come of the client.
    """

    __slots__ = (
        *("_asked", "_bytes", "_due", "_messages", "_ping", "_pinged", "_unpinged", "_waiting"),
        *("account", "clock", "closed_at", "closing", "over", "received"),
    )

    def __init__(self, ping: Callable[[], None]) -> None:
        self._ping = ping
        self._messages = self._bytes = self._waiting = 0
        self._asked = self.closing = self.over = False
        self._due = 0.0
        self._unpinged: list[Waiter] = []
        self._pinged: dict[bytes, tuple[Mark, Any, list[Waiter]]] = {}
        """By the payload of a ping, in the order of the pings: what was written before it."""
        self.account: Account | None = None
        self.closed_at: Any = None
        self.clock: Callable[[], float] | None = None
        self.received = Mark(0, 0)

    @property
    def waiting(self) -> int:
        """How many receipts are awaited."""
        return self._waiting

    @property
    def written(self) -> Mark:
        """All that was written since this was made."""
        return Mark(self._messages, self._bytes)

    # -- writing and asking ----------------------------------------------------------------

    def wrote(self, outgoing: Outgoing) -> None:
        """Messages are handed to the writer."""
        self._messages += outgoing.count
        self._bytes += outgoing.size
        if self.clock is not None:
            asked = next(reversed(self._pinged.values()))[0] if self._pinged else self.received
            if (
                self._messages - asked.messages >= MANY_MESSAGES
                or self._bytes - asked.bytes >= MANY_BYTES
            ) and (now := self.clock()) >= self._due:
                self._due = now + PAUSE
                self.ask()

    def ask(self) -> None:
        """Have a ping sent, also if no receipt is awaited."""
        if not self._asked:
            self._asked = True
            self._ping()

    def add(self, waiter: Waiter) -> None:
        """Await a receipt for all that was put into the outbox so far."""
        self._unpinged.append(waiter)
        self._waiting += 1
        self.ask()

    def next_ping(self, *, now: bool = False) -> bytes | None:
        """The payload of a ping to send behind all that was written; None for none.

        While many are unanswered it waits, unless the earliest is of no use any more. The earliest
        then counts no longer: the next one proves the same.

        Args:
            now: it cannot wait.
        """
        if not self._asked:
            return None
        if len(self._pinged) >= MOST_PINGS:
            (earliest, (_, _, early)), (_, (_, _, following)) = islice(self._pinged.items(), 2)
            if early and not now:
                return None
            following += early
            del self._pinged[earliest]
        payload = next(_numbers).to_bytes(PAYLOAD_BYTES)
        word = None if self.account is None else self.account.written()
        self._pinged[payload] = self.written, word, self._unpinged
        self._unpinged, self._asked = [], False
        return payload

    # -- answers ---------------------------------------------------------------------------

    def pong(self, payload: bytes) -> bool:
        """A Pong has come: it answers its ping and all earlier ones. False if we sent no such one.

        A client may answer only the last of several pings (RFC 6455 section 5.5.3).
        """
        if payload not in self._pinged:
            return False
        for sent in list(self._pinged):
            self.received, word, waiters = self._pinged.pop(sent)
            if self.account is not None:
                self.account.received(word)
            self._waiting -= len(waiters)
            for _, tell in waiters:
                tell(SendResult.RECEIVED)
            if sent == payload:
                break
        if self._asked:
            self._ping()
        return True

    def expire(self, now: float) -> bool:
        """Forget waiters that are late; whether others are left."""
        self._unpinged = [one for one in self._unpinged if one[0] > now]
        self._waiting = len(self._unpinged)
        for _, _, waiters in self._pinged.values():
            waiters[:] = [one for one in waiters if one[0] > now]
            self._waiting += len(waiters)
        if self._asked:
            self._ping()
        return self._waiting > 0

    def end(self, *, received: bool) -> None:
        """The connection has ended: tell all that wait.

        Args:
            received: whether its client has everything that was written.
        """
        waiters = [one for *_, some in self._pinged.values() for one in some] + self._unpinged
        self._pinged, self._unpinged, self._waiting = {}, [], 0
        self.over = True
        if received:
            self.received = self.written
        if self.account is not None:
            if received:
                self.account.received(self.closed_at)
            self.account.over()
        for _, tell in waiters:
            tell(SendResult.RECEIVED if received else SendResult.TIMED_OUT)
