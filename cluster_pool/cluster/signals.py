"""Catches the signals that end a process: SIGTERM from an orchestrator, SIGINT from a terminal.

They are intercepted before their present handler (that of an ASGI server, for example, would close
every socket at once), and can be handed on to it after the drain. :mod:`.stopping` drains.

A handler of ``loop.add_signal_handler`` is not called by Python's own handler, but through the byte
that the interpreter writes to the wakeup descriptor. So that is replaced as well, and the bytes of
other signals are passed on.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any, Final, Self

from cluster_pool.exceptions import ClusterPoolError

log = logging.getLogger("cluster_pool.drain")

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
FIRST_LOOK: Final = 0.01
LOOK: Final = 1.0
"""Seconds between two looks whether the wakeup descriptor is still ours: uvloop sets its own at
each ``run_until_complete``, asyncio at each ``add_signal_handler``. Servers do so while they start,
so the first looks are closer together."""
NO_DESCRIPTOR: Final = -1


def in_main_thread() -> bool:
    """Whether this is the main thread, where alone signals can be caught."""
    return threading.current_thread() is threading.main_thread()


class WakeupDescriptor:
    """Replaces the wakeup descriptor while any :class:`Signals` in this process is entered."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._theirs = NO_DESCRIPTOR
        """The descriptor that was set before."""
        self._write, self._read = socket.socketpair()
        for end in (self._write, self._read):
            end.setblocking(False)
        self.loop.add_reader(self._read, self._hear)
        self._look(FIRST_LOOK)
        self.users = 0

    def close(self) -> None:
        """Restore the former descriptor, or the one that others have set since."""
        self._looking.cancel()
        self.loop.remove_reader(self._read)
        self._install()
        self._set(self._theirs)
        self._write.close()
        self._read.close()

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """Restore the former descriptor while the body runs."""
        self._install()
        self._set(self._theirs)
        try:
            yield
        finally:
            self._install()

    def _look(self, pause: float) -> None:
        """Install it again, if another was set meanwhile, and look again after ``pause``."""
        self._install()
        self._looking = self.loop.call_later(pause, self._look, min(2 * pause, LOOK))

    def _install(self) -> None:
        before = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        if before != self._write.fileno():
            self._theirs = before

    @staticmethod
    def _set(descriptor: int) -> None:
        try:
            signal.set_wakeup_fd(descriptor)
        except (ValueError, OSError):  # its owner has closed it
            signal.set_wakeup_fd(NO_DESCRIPTOR)

    def _hear(self) -> None:
        """Drop the bytes of signals that are caught here, and pass on those of others."""
        with contextlib.suppress(BlockingIOError, InterruptedError):
            others = bytes(number for number in self._read.recv(4096) if not _is_caught(number))
            if others and self._theirs != NO_DESCRIPTOR:
                with contextlib.suppress(OSError):
                    os.write(self._theirs, others)


_wakeup: WakeupDescriptor | None = None


def _is_caught(number: int) -> bool:
    return _is_ours(signal.getsignal(number))


def _is_ours(handler: object) -> bool:
    return isinstance(getattr(handler, "__self__", None), Signals)


@contextlib.contextmanager
def _wakeup_descriptor() -> Iterator[WakeupDescriptor]:
    """The wakeup descriptor of this process, while it is used."""
    global _wakeup  # a process has only one; that of a closed loop is replaced
    if _wakeup is None or _wakeup.loop is not asyncio.get_running_loop():
        _wakeup = WakeupDescriptor()
    shared = _wakeup
    shared.users += 1
    try:
        yield shared
    finally:
        shared.users -= 1
        if not shared.users:
            _wakeup = None if _wakeup is shared else _wakeup
            shared.close()


class Signals:
    """Catches signals while it is entered; in the main thread only.

    Repeats of the first signal within ``repeat`` seconds are ignored: they are the same stop, sent
    by several senders (systemd, supervisord and terminals signal a whole process group, and a
    process of the group then signals the others). In a child of ``multiprocessing`` that includes
    SIGTERM after SIGINT: its parent turns Ctrl-C into a SIGTERM.

    Args:
        repeat: seconds.
        numbers: the signals.
        hands_on: whether they are handed on. If the former handlers are of this class, too, both
            get a signal at once and work at the same time; then the outer one hands it on.
    """

    def __init__(
        self, repeat: float, numbers: tuple[int, ...] = SIGNALS, *, hands_on: bool = False
    ) -> None:
        self._repeat = repeat
        self._numbers = numbers
        self._hands_on = hands_on
        self._inside: set[Signals] = set()
        """Inner ones that got the signal, too, and have not handed it on yet."""
        self._alone = asyncio.Event()
        self._alone.set()
        self._heard: asyncio.Queue[int] = asyncio.Queue()
        self._first: tuple[int, float] | None = None
        self._previous: dict[int, Any] = {}
        self._handler = self._hear  # one object, to recognize it
        self._exited = False
        self._process = os.getpid()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if not in_main_thread():
            raise ClusterPoolError("signals can be taken in the main thread only")
        self._loop = asyncio.get_running_loop()
        self._wakeup = self._stack.enter_context(_wakeup_descriptor())
        for number in self._numbers:
            self._previous[number] = signal.signal(number, self._handler)
        return self

    def __exit__(self, *error: object) -> None:
        for outer in filter(None, map(self._outer, self._numbers)):
            outer._let_go(self)
        self._exited = True
        for number in self._numbers:
            if signal.getsignal(number) is self._handler:
                signal.signal(number, self._before(number))
        self._stack.close()

    async def next(self) -> int:
        """Wait for a signal."""
        return await self._heard.get()

    async def hand_on(self, number: int) -> None:
        """Call the former handler, after the inner ones have handed the signal on.

        Raises:
            SystemExit: there was no handler, and the kernel does not end this process: it is PID 1.
            Errors of the handler.
        """
        await self._alone.wait()
        before, outer = self._before(number), self._outer(number)
        if outer is not None:
            outer._let_go(self)
            return
        now = signal.signal(number, before)
        try:
            with self._wakeup.restored():
                signal.raise_signal(number)
        finally:
            signal.signal(number, now)
        if before == signal.SIG_DFL:
            raise SystemExit(128 + number)

    def ignore(self, number: int) -> None:
        """Hand this signal on to no handler: the process ends by itself."""
        self._previous[number] = signal.SIG_IGN

    def _before(self, number: int) -> Any:
        """The former handler; the default for one that Python cannot restore.

        If it is one of this class that has exited meanwhile, the handler before that.
        """
        before = self._previous[number]
        if _is_ours(before) and before.__self__._exited:
            return before.__self__._before(number)
        return signal.SIG_DFL if before is None else before

    def _outer(self, number: int) -> "Signals | None":
        """The former handler, if it is one of this class."""
        before = self._before(number)
        return before.__self__ if _is_ours(before) else None

    def _let_go(self, inner: "Signals") -> None:
        self._inside.discard(inner)
        if not self._inside:
            self._alone.set()

    # -- hearing ---------------------------------------------------------------------------

    def _hear(self, number: int, frame: object) -> None:
        """The signal handler, called anywhere in the main thread; also in a forked child."""
        if os.getpid() == self._process:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._note, number)
            return
        signal.set_wakeup_fd(NO_DESCRIPTOR)  # shared with the parent, which got no signal
        signal.signal(number, self._before(number))
        signal.raise_signal(number)

    def _note(self, number: int) -> None:
        now = self._loop.time()
        if self._first is None:
            self._first = (number, now)
        elif now - self._first[1] <= self._repeat and self._repeats(self._first[0], number):
            log.debug("%s again: the same stop", signal.Signals(number).name)
            return
        self._heard.put_nowait(number)
        outer = self._outer(number)
        if outer is not None and self._hands_on:
            outer._inside.add(self)
            outer._alone.clear()
            outer._hear(number, None)

    @staticmethod
    def _repeats(first: int, number: int) -> bool:
        passed_on = (first, number) == (signal.SIGINT, signal.SIGTERM)
        return number == first or (passed_on and multiprocessing.parent_process() is not None)
