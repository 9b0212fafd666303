"""Several node processes in one event loop: each can be frozen, thawed and killed by itself.

A callback belongs to the process in whose context it was scheduled. What belongs to a frozen
process waits, as it does after SIGSTOP, while timers go on and bytes gather in its sockets; what
belongs to a dead one is dropped.
"""

import asyncio
import contextlib
import contextvars
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from unittest import mock

PROCESS: contextvars.ContextVar["Process"] = contextvars.ContextVar("PROCESS")
STEP = 2e-5
"""Virtual seconds that one turn of the loop takes: nothing happens in no time."""


class Process:
    """The tasks and callbacks of one node."""

    def __init__(self) -> None:
        self.frozen = False
        self.dead = False
        self.tasks: set[asyncio.Task[Any]] = set()
        self._held: list[asyncio.Handle] = []
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something in this process."""
        return asyncio.get_running_loop().create_task(work, context=self.context.copy())

    def hold(self, handle: asyncio.Handle) -> None:
        """Keep a callback that fell due while this process is frozen."""
        self._held.append(handle)

    def freeze(self) -> None:
        """As SIGSTOP does."""
        self.frozen = True

    def thaw(self) -> None:
        """As SIGCONT does: what fell due meanwhile runs now, in its order."""
        self.frozen = False
        held, self._held = self._held, []
        for handle in held:
            asyncio.get_running_loop().call_soon(_resume, handle)

    async def kill(self) -> None:
        """Unwind all that it runs; its sockets must be dead already, so others do not notice."""
        self.thaw()
        while self.tasks:
            rest = list(self.tasks)
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
        self.dead = True


def _resume(handle: asyncio.Handle) -> None:
    if not handle.cancelled():
        handle._run()


class _Passage:
    """Stands before a callback of a process."""

    __slots__ = ("callback", "handle", "process")

    def __init__(self, process: Process, callback: Callable[..., Any]) -> None:
        self.process = process
        self.callback = callback
        self.handle: asyncio.Handle

    def __call__(self, *args: Any) -> None:
        if self.process.frozen:
            self.process.hold(self.handle)
        elif not self.process.dead:
            self.callback(*args)


class ProcessLoop(asyncio.SelectorEventLoop):
    """The usual loop, in which callbacks belong to processes."""

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        passage = _passage(callback, context)
        handle = super().call_soon(passage, *args, context=context)
        if isinstance(passage, _Passage):
            passage.handle = handle
        return handle

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        passage = _passage(callback, context)
        handle = super().call_at(when, passage, *args, context=context)
        if isinstance(passage, _Passage):
            passage.handle = handle
        return handle

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> asyncio.Task[Any]:
        task = super().create_task(coro, name=name, context=context)
        process = PROCESS.get(None) if context is None else context.get(PROCESS)
        if process is not None:
            process.tasks.add(task)
            task.add_done_callback(process.tasks.discard, context=contextvars.Context())
        return task


def _passage(callback: Callable[..., Any], context: contextvars.Context | None) -> Any:
    process = PROCESS.get(None) if context is None else context.get(PROCESS)
    return callback if process is None else _Passage(process, callback)


class _Clock(selectors.DefaultSelector):
    """A selector that does not wait: it puts the clock forward."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        events = super().select(0)
        assert timeout is not None or events, "nothing will ever happen again"
        self.now += STEP if events else max(timeout or 0.0, STEP)
        return events


class VirtualLoop(ProcessLoop):
    """A loop whose time passes only while everything waits, and then at once.

    For what needs no sockets, that is for fakeredis; see :meth:`everywhere`.
    """

    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    @contextlib.contextmanager
    def everywhere(self) -> Iterator[None]:
        """Let fakeredis and the clock of leases go by this loop's time, too."""
        epoch = time.time()

        def wall() -> float:
            return epoch + self._clock.now

        def steady(clock: int) -> float:
            return self._clock.now

        with mock.patch.multiple(time, time=wall, clock_gettime=steady):
            yield
