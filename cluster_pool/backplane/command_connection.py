"""Sockets to Redis that live for one generation: the writing side, and pipelined commands.

Commands are written without waiting for replies; the reader resolves their futures in order.
Nothing is retried here: when the socket fails, every unanswered command fails, and its error says
whether it may have been executed.
"""

import asyncio
import logging
from collections import deque
from typing import Any, Final, NamedTuple

import hiredis
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from cluster_pool.backplane.endpoint import drop
from cluster_pool.backplane.logins import Raw
from cluster_pool.backplane.refusals import FAULTS, refusal, unavailable
from cluster_pool.backplane.scripts import PUBLISH, digests, mended, sources
from cluster_pool.core.ids import shown
from cluster_pool.exceptions import BackplaneUnavailableError

log = logging.getLogger("cluster_pool.backplane")

LOST: Final = "the link to Redis failed"

Argument = str | bytes | int


class ScriptCall(NamedTuple):
    """One of our scripts, the keys that it touches, and its arguments; see :mod:`.script_calls`."""

    name: str
    keys: list[str]
    arguments: list[Argument]


class Pipe:
    """The writing side of one redis-py connection object: commands leave in the order given."""

    def __init__(self, connection: Raw) -> None:
        self.connection = connection
        self.unwritten: list[bytes] = []
        self._wake = asyncio.Event()

    def put(self, *arguments: Argument) -> None:
        """Queue a command; those of one tick are written together."""
        self.unwritten.append(hiredis.pack_command(arguments))  # type: ignore[arg-type]  # its stub has one element
        if len(self.unwritten) == 1:
            self._wake.set()

    async def write_forever(self) -> None:
        """Write what is queued. Ends only with an error or by cancellation."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            commands, self.unwritten = self.unwritten, []
            try:
                await self.connection.send_packed_command(commands, check_health=False)
            except FAULTS as error:
                raise unavailable(LOST, error) from error

    async def drop(self) -> None:
        """Close the socket without waiting for the other side."""
        self.unwritten = []
        await drop(self.connection)


class CommandConnection(Pipe):
    """Commands to Redis over one socket, pipelined.

    Commands are executed in the order of :meth:`call`, and replies resolve in that order.

    Args:
        publish: the command by which scripts publish here.
    """

    def __init__(self, connection: Raw, publish: str = PUBLISH) -> None:
        super().__init__(connection)
        self._publish = publish
        self._digests = digests(publish)
        self._replies: deque[asyncio.Future[Any]] = deque()
        self._failure: BackplaneUnavailableError | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def failed(self) -> bool:
        """Whether it has failed, and sends nothing any more."""
        return self._failure is not None

    def call(self, *arguments: Argument) -> asyncio.Future[Any]:
        """Queue a command; its future gives the reply.

        Raises (in the future): ResponseError for an error reply; BackplaneUnavailableError when
        the connection failed. Cancelling the future abandons the reply, not the command.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._failure is not None:
            future.set_exception(_copy(self._failure, maybe_executed=False))
            future.exception()  # as in :meth:`fail`
            return future
        self.put(*arguments)  # first: it raises for what cannot be packed, which gets no reply
        self._replies.append(future)
        return future

    def script(self, call: ScriptCall) -> asyncio.Future[Any]:
        """Queue one of our scripts, as :meth:`call` does."""
        name, keys, arguments = call
        return self.call("EVALSHA", self._digests[name], len(keys), *keys, *arguments)

    async def load_scripts(self) -> None:
        """Load every script; this comes first on a new connection."""
        texts = sources(self._publish).values()
        await asyncio.gather(*[self.call("SCRIPT", "LOAD", text) for text in texts])

    async def read_forever(self) -> None:
        """Resolve replies. Ends only with an error or by cancellation.

        NOSCRIPT or READONLY ends the connection: later commands must not overtake the failed one.
        """
        read = self.connection.read_response
        while True:
            reply: Any
            try:
                reply = await read(disconnect_on_error=False)
            except ResponseError as error:
                reply = error
            except FAULTS as error:
                raise unavailable(LOST, error) from error
            future = self._replies.popleft()
            if isinstance(reply, NoScriptError | ReadOnlyError):
                failure = BackplaneUnavailableError(refusal(reply))
                if not future.done():
                    future.set_exception(failure)
                raise failure
            found = mended(reply)
            if found:
                _warn(found)
                reply = reply[2]
            if future.done():
                continue
            if isinstance(reply, ResponseError):
                future.set_exception(reply)
            else:
                future.set_result(reply)

    async def fail(self, error: BackplaneUnavailableError) -> None:
        """Fail every unanswered command, and drop the socket."""
        self._failure = error
        replies, self._replies = self._replies, deque()
        written = len(replies) - len(self.unwritten)
        for index, future in enumerate(replies):
            if not future.done():
                future.set_exception(_copy(error, maybe_executed=index < written))
                future.exception()  # read here, so that asyncio does not log it
        await self.drop()


def _warn(found: list[bytes]) -> None:
    """Log what a script repaired in our keys: values that this library never writes."""
    texts = "; ".join(shown(text.decode(errors="backslashreplace"), 400) for text in found)
    log.warning("Redis was not as this library left it: %s", texts)


def _copy(error: BackplaneUnavailableError, *, maybe_executed: bool) -> BackplaneUnavailableError:
    copy = BackplaneUnavailableError(str(error), maybe_executed=maybe_executed)
    copy.__cause__ = error
    return copy
