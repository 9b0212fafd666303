"""The services that a pool gives its connections, and the observer of a connection's end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from cluster_pool.auth.identity import Identity
from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.history import Wish
from cluster_pool.core.quiet import Quiet
from cluster_pool.core.statistics import Counters
from cluster_pool.loops import running_loop

C = TypeVar("C")


class Flusher(Generic[C]):
    """Writes the connections that got messages in this tick of the loop, once, at its end.

    Args:
        write: writes the pending messages of each of them.
    """

    __slots__ = ("_dirty", "_write")

    def __init__(self, write: Callable[[list[C]], None]) -> None:
        self._dirty: list[C] = []
        self._write = write

    def add(self, connection: C) -> None:
        """``connection`` has something to write. It raises without a running loop."""
        if not self._dirty:
            running_loop().call_soon(self.flush)
        self._dirty.append(connection)

    def add_all(self, connections: list[C]) -> None:
        """Each of ``connections`` has something to write."""
        if connections and not self._dirty:
            running_loop().call_soon(self.flush)
        self._dirty += connections

    def flush(self) -> None:
        """Write everything now."""
        dirty, self._dirty = self._dirty, []
        self._write(dirty)


class LooseFlusher(Flusher[C]):
    """The flusher of connections without a pool: each loop writes its own connections."""

    __slots__ = ("_by_loop",)

    def __init__(self, write: Callable[[list[C]], None]) -> None:
        super().__init__(write)
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Flusher[C]]
        self._by_loop = WeakKeyDictionary()

    def add(self, connection: C) -> None:
        """See :class:`Flusher`."""
        loop = running_loop()
        flusher = self._by_loop.get(loop)
        if flusher is None:
            flusher = self._by_loop[loop] = Flusher(self._write)
        flusher.add(connection)


class Owner(Protocol):
    """The owner of a connection: code that runs while it is open, and is told when it is over."""

    def reading_begins(self) -> None:
        """The current task begins to iterate over the connection."""

    def reading_ends(self, task: "asyncio.Task[Any] | None", *, finished: bool) -> None:
        """The iteration that ``task`` began has ended: at the end of the client, or before."""

    def closing(self) -> None:
        """The current task has told the connection to close."""

    def calls(self) -> bool:
        """Whether the current code is the owner's."""

    def over(self) -> None:
        """The client has left, or its messages are ignored from now on; perhaps called for both."""


class ConnectionServices(Protocol):
    """A pool as its connections use it: limits, counters, and calls about their events."""

    limits: Limits
    timing: Timing
    counters: Counters
    flusher: Flusher[Any]
    pinger: Flusher[Any]
    quiet: Quiet
    receipts: bool
    """Whether pongs and answered closes are receipts of clients."""

    def check_loop(self) -> None:
        """Raise WrongLoopError unless this is the loop in which the connections live."""

    def connection_closing(self, connection: Any) -> None:
        """A connection begins to close, for any reason; called once."""

    def slow_consumer(self, connection: Any) -> None:
        """A connection is being closed with 1013."""

    def check_identity(self, identity: Identity) -> None:
        """Raise AuthenticationError if the token of an identity was revoked."""

    def renewed(self, connection: Any) -> None:
        """A connection has a new identity, which may expire at another time."""

    def withdraw(self, connection: Any, namespace: str) -> None:
        """End a membership beside its home at once: its identity permits that no more."""

    def join(
        self,
        connection: Any,
        namespace: str,
        id: str | None,
        on_conflict: str | None,
        timeout: float | None,
        wish: Wish,
        info: str | None,
        /,
    ) -> Awaitable[bool | None]:
        """Make a connection a member of one more namespace; see :meth:`.Connection.join`.

        Its info there, as JSON text, is told by its claim; it stays as it is for one that is a
        member already.
        """

    def leave(
        self,
        connection: Any,
        namespace: str,
        on_empty: Callable[[], Any] | None,
        timeout: float | None,
        /,
    ) -> Awaitable[None]:
        """End one membership of a connection; see :meth:`.Connection.leave`."""

    def inform(self, connection: Any, namespace: str, timeout: float | None, /) -> Awaitable[None]:
        """A member has another info in one namespace; see :meth:`.Connection.update_info`."""

    def watch(self, connection: Any) -> None:
        """The sweeper must look at it: it closes, has unwritten bytes, a handler, or may idle."""
