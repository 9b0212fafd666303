"""Draining when the process is told to end: SIGTERM from an orchestrator, SIGINT from a person.

The signals are taken from whoever has them (an ASGI server, say, which would close every socket at
once), and can be handed on when the drain is over. :mod:`.stopping` says what is done meanwhile.

A handler of ``loop.add_signal_handler`` is not called by Python's handler, but by the byte that the
interpreter writes to the wakeup descriptor; so that is taken as well, and what comes over it for
others is written on.
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
"""Seconds between two looks whether the wakeup descriptor is still this one's: uvloop sets its own
at each ``run_until_complete``, asyncio at each ``add_signal_handler``. Servers do so while they
start, so the first looks are closer together."""
NO_DESCRIPTOR: Final = -1


def in_main_thread() -> bool:
    """Whether signals can be taken here."""
    return threading.current_thread() is threading.main_thread()


class Signals:
    """Takes signals while it is entered; in the main thread only.

    Repeats of the first one within ``repeat`` seconds are not told: they are the same stop, told by
    more than one (systemd, supervisord and a terminal tell a whole process group, of which one then
    tells the others). In a child of ``multiprocessing`` that holds for SIGTERM after SIGINT, too:
    Ctrl-C, which its parent passes on as SIGTERM.
    """

    def __init__(self, repeat: float, numbers: tuple[int, ...] = SIGNALS) -> None:
        self._repeat = repeat
        self._numbers = numbers
        self._heard: asyncio.Queue[int] = asyncio.Queue()
        self._first: tuple[int, float] | None = None
        self._previous: dict[int, Any] = {}
        self._handler = self._hear  # one object, to know it again
        self._process = os.getpid()
        self._descriptor = NO_DESCRIPTOR
        """The wakeup descriptor of whoever had it before."""
        self._looking: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        if not in_main_thread():
            raise ClusterPoolError("signals can be taken in the main thread only")
        self._loop = asyncio.get_running_loop()
        self._ours, self._told = socket.socketpair()
        for end in (self._ours, self._told):
            end.setblocking(False)
        for number in self._numbers:
            self._previous[number] = signal.signal(number, self._handler)
        self._loop.add_reader(self._told, self._read)
        self._look(FIRST_LOOK)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._looking is not None
        self._looking.cancel()
        self._give_back()
        self._loop.remove_reader(self._told)
        self._ours.close()
        self._told.close()

    async def next(self) -> int:
        """Wait for a signal."""
        return await self._heard.get()

    def hand_on(self, number: int) -> None:
        """Do what whoever had the signal before would have done.

        Raises:
            SystemExit: nobody had it, and the kernel spares this process: it is PID 1.
            What the handler raises.
        """
        with self._given_back():
            nobody = signal.getsignal(number) in (signal.SIG_DFL, None)
            if nobody:
                signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if nobody:
            raise SystemExit(128 + number)

    # -- taking and giving back ------------------------------------------------------------

    def _look(self, pause: float) -> None:
        """Take the wakeup descriptor, unless it is this one's already."""
        self._take_descriptor()
        self._looking = self._loop.call_later(pause, self._look, min(2 * pause, LOOK))

    def _take_descriptor(self) -> None:
        before = signal.set_wakeup_fd(self._ours.fileno(), warn_on_full_buffer=False)
        if before != self._ours.fileno():
            self._descriptor = before

    def _give_back(self) -> None:
        """What was taken since by others stays theirs."""
        for number, handler in self._previous.items():
            if signal.getsignal(number) is self._handler:
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
        now = signal.set_wakeup_fd(NO_DESCRIPTOR)
        with contextlib.suppress(ValueError, OSError):  # its owner may have closed it
            signal.set_wakeup_fd(self._descriptor if now == self._ours.fileno() else now)

    @contextlib.contextmanager
    def _given_back(self) -> Iterator[None]:
        taken = [n for n in self._numbers if signal.getsignal(n) is self._handler]
        self._give_back()
        try:
            yield
        finally:
            for number in taken:
                signal.signal(number, self._handler)
            self._take_descriptor()

    # -- hearing ---------------------------------------------------------------------------

    def _hear(self, number: int, frame: object) -> None:
        """Python's handler, anywhere in the main thread; also in a child that was forked."""
        if os.getpid() == self._process:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._note, number)
            return
        signal.set_wakeup_fd(NO_DESCRIPTOR)  # shared with the parent, who was not told
        before = self._previous[number]
        signal.signal(number, signal.SIG_DFL if before is None else before)
        signal.raise_signal(number)

    def _note(self, number: int) -> None:
        now = self._loop.time()
        if self._first is None:
            self._first = (number, now)
        elif now - self._first[1] <= self._repeat and self._repeats(self._first[0], number):
            log.debug("%s again: the same stop", signal.Signals(number).name)
            return
        self._heard.put_nowait(number)

    @staticmethod
    def _repeats(first: int, number: int) -> bool:
        passed_on = (first, number) == (signal.SIGINT, signal.SIGTERM)
        return number == first or (passed_on and multiprocessing.parent_process() is not None)

    def _read(self) -> None:
        """Bytes of the wakeup descriptor: keep those of ours, write those of others on."""
        try:
            heard = self._told.recv(4096)
        except (BlockingIOError, InterruptedError):
            return
        others = bytes(number for number in heard if not self._holds(number))
        if others and self._descriptor != NO_DESCRIPTOR:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, others)

    def _holds(self, number: int) -> bool:
        """Whether it is this one's to tell, or one's that was entered after it."""
        handler = getattr(signal.getsignal(number), "__self__", None)
        return number in self._previous and isinstance(handler, Signals)
