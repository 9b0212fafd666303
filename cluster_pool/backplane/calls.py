"""Calls to Redis: deadlines, replies, and the translation of errors.

Owns :class:`Reply`. It knows no command and no socket.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from typing import Any, Generic, TypeVar

from redis.exceptions import ResponseError

from cluster_pool.backplane.refusals import refusal
from cluster_pool.exceptions import BackplaneUnavailableError

T = TypeVar("T")

Deadline = float | None
"""A moment on the event loop's clock; None waits for as long as the command connection lives."""


def deadline_in(seconds: float) -> float:
    """The moment that is ``seconds`` from now on the running loop's clock."""
    return asyncio.get_running_loop().time() + seconds


class Reply(Awaitable[T], Generic[T]):
    """The reply of a command that is queued already, ahead of all that is queued later.

    Awaiting it gives the value that ``read`` makes of the reply, and raises
    BackplaneUnavailableError when Redis refused, the connection was lost, or the deadline has
    passed. It need not be awaited: then a failure is not reported.

    Args:
        call: the raw reply, of one command or of several that were gathered.
        read: turns that into a value.
        deadline: the end of waiting for it.
    """

    __slots__ = ("_call", "_deadline", "_read")

    def __init__(
        self, call: asyncio.Future[Any], read: Callable[[Any], T], deadline: Deadline = None
    ) -> None:
        self._call = call
        self._read = read
        self._deadline = deadline
        call.add_done_callback(unheeded)

    def __await__(self) -> Generator[Any, None, T]:
        return self._wait().__await__()

    async def _wait(self) -> T:
        return self._read(await answered(self._call, self._deadline))


async def answered(call: asyncio.Future[Any], deadline: Deadline) -> Any:
    """The reply of a queued command; raises BackplaneUnavailableError without one in time.

    Without a deadline it waits as long as the connection lives, which a silent Redis ends soon.
    """
    async with ending_at(deadline, _unanswered):
        return await call


@contextlib.asynccontextmanager
async def ending_at(
    deadline: Deadline, unanswered: Callable[[], BackplaneUnavailableError]
) -> AsyncIterator[None]:
    """Run the body until ``deadline`` at the latest, and translate an error reply of Redis.

    Args:
        unanswered: makes the error for a body that has not ended by then.
    """
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise unanswered() from None
    except ResponseError as error:
        raise BackplaneUnavailableError(refusal(error)) from error


def _unanswered() -> BackplaneUnavailableError:
    return BackplaneUnavailableError("Redis did not answer in time", maybe_executed=True)


def unheeded(call: asyncio.Future[Any]) -> None:
    """Read the outcome of a call that is not awaited, so that asyncio does not log it."""
    if not call.cancelled():
        call.exception()


# -- reading replies ---------------------------------------------------------------------------


def in_time(reply: Any) -> Any:
    """The reply of a script with a deadline; raises when the script ran after it."""
    if reply[0] != b"OK":
        raise BackplaneUnavailableError("Redis was reached too late; nothing was changed")
    return reply


def text_of(raw: bytes | None) -> str | None:
    """A value of Redis as text; None if it is not UTF-8, and hence not written by us."""
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return None


def texts(raw: Iterable[bytes]) -> list[str]:
    """Several values as text, without those that are not text."""
    return [text for text in map(text_of, raw) if text is not None]


def pairs(flat: Iterable[bytes | None]) -> dict[str, str]:
    """Fields and values of a hash as text, without those that are not text."""
    read = list(map(text_of, flat))
    return {
        name: value
        for name, value in zip(read[::2], read[1::2], strict=True)
        if name is not None and value is not None
    }
