"""The result of a queued operation: a future that has the methods of a coroutine.

``gather``, ``wait`` and ``wait_for`` take a future as it is, and wrap a coroutine in a task, which
costs more than all the rest of a send. ``create_task`` and ``asyncio.run`` take a coroutine alone.
People write all of them, so an outcome is both.
"""

import asyncio
import inspect
import sys
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

Result = TypeVar("Result")
Function = TypeVar("Function", bound=Callable[..., Any])


class Outcome(asyncio.Future[Result], Coroutine[Any, Any, Result]):
    """The result of an operation that waits for Redis; cancelling it drops what was not sent."""

    __slots__ = ("_awaiting",)

    _awaiting: Generator[Any, None, Result]

    def send(self, value: Any) -> Any:
        """Go on waiting, as a task does with a coroutine."""
        return self._begun().send(value)

    def throw(self, *error: Any) -> Any:
        """End the waiting with an error: a task that is cancelled drops the operation, too."""
        self.cancel()
        return self._begun().throw(*error)

    def close(self) -> None:
        """Drop the operation, unless it was sent."""
        self.cancel()

    def _begun(self) -> Generator[Any, None, Result]:
        try:
            return self._awaiting
        except AttributeError:
            self._awaiting = self.__await__()
            return self._awaiting


def gives_coroutine(function: Function) -> Function:
    """Mark a function that returns an outcome: frameworks call one that is no coroutine function
    in a thread, as Starlette's background tasks do."""
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)
    function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
    return function
