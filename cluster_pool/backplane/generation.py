"""Generations: each is one life of the sockets to Redis; commands go over the one that is up.

Owns which one that is, and the errors of calls that wait for one in vain. :mod:`.shard` opens and
closes the sockets.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final

from cluster_pool.backplane.calls import Deadline, ending_at
from cluster_pool.backplane.command_connection import Argument, CommandConnection, ScriptCall
from cluster_pool.backplane.outage import Outage
from cluster_pool.exceptions import BackplaneUnavailableError, PoolClosedError

A_MOMENT: Final = 1.0
"""Seconds after a generation ended in which another is likely to come up at once."""


class Generation:
    """One generation, for operations that must be executed in it or not at all.

    Such an operation queues its command before it returns, so that Redis executes operations in
    the order of their calls. Once the generation has ended it sends nothing, and its reply raises
    BackplaneUnavailableError.
    """

    __slots__ = ("_commands",)

    def __init__(self, commands: CommandConnection) -> None:
        self._commands = commands

    @property
    def lasts(self) -> bool:
        """Whether its sockets still work."""
        return not self._commands.failed

    def commands(self, key: str) -> CommandConnection:
        """The command connection to the Redis that has ``key``."""
        return self._commands

    def script(self, call: ScriptCall) -> asyncio.Future[Any]:
        """Queue one of our scripts at the Redis that has its keys; the first key stands for all."""
        return self.commands(call.keys[0]).script(call)


class Generations:
    """The generations of one start, of which one at most is up.

    Args:
        start: the name of the start, which no other has.
        numbers: gives the number of the next generation.
    """

    def __init__(self, start: str, outage: Outage, numbers: Iterator[int]) -> None:
        self._numbers = numbers
        self.number = 0
        """The number of the newest generation that subscribed everything; 0 before the first."""
        self.sender = f"{start} 0"
        """How the newest generation is named in the headers of envelopes."""
        self.current: Generation | None = None
        """The generation that is up; None while none is."""
        self.commands: CommandConnection | None = None
        """Its command connection."""
        self.last_error: BackplaneUnavailableError | None = None
        """Why the last generation ended, or did not come up."""
        self._start = start
        self.outage = outage
        self._open = self._moved = False
        self._changed = asyncio.Event()
        """Set while a generation is up, and after :meth:`close`."""
        self._down_since = 0.0
        self.was_down = 0.0
        """For how many seconds none was up, before the newest one was."""

    def open(self) -> None:
        """From now on calls wait for a generation."""
        self._open, self._moved = True, False
        self._changed.clear()
        self._down_since = asyncio.get_running_loop().time()

    def close(self, *, moved: bool = False) -> None:
        """No generation will come any more: waiting for one raises PoolClosedError.

        Args:
            moved: whether another Redis serves what this one did. Then waiting raises
                BackplaneUnavailableError, and the caller may ask that one.
        """
        self._open = False
        self._moved = moved
        self._changed.set()

    def count(self) -> None:
        """Another generation has subscribed everything, and may come up."""
        self.number = next(self._numbers)
        self.sender = f"{self._start} {self.number}"

    def begin(self, commands: CommandConnection) -> None:
        """The newest generation is up."""
        self.was_down = self.seconds_down()
        self.commands = commands
        self.current = Generation(commands)
        self._changed.set()

    def end(self) -> bool:
        """The generation has ended; returns whether it was up."""
        if self.current is None:
            return False
        self.current = self.commands = None
        if self._open:
            self._changed.clear()
        self._down_since = asyncio.get_running_loop().time()
        return True

    @property
    def why_ended(self) -> str:
        """Why the last generation ended, or did not come up."""
        return str(self.last_error or "the first link")

    def seconds_down(self) -> float:
        """For how long no generation has been up; 0 while one is."""
        if self.current is not None:
            return 0.0
        return asyncio.get_running_loop().time() - self._down_since

    async def changed(self) -> None:
        """Wait until a generation is up, or there will be none."""
        await self._changed.wait()

    async def connected(self, deadline: Deadline) -> Generation:
        """The generation that is up, waited for until ``deadline``.

        Raises:
            BackplaneUnavailableError: none is up by then, or another Redis has taken over.
            PoolClosedError: there will be none.
        """
        if self.current is not None:
            return self.current
        try:
            async with asyncio.timeout_at(deadline):
                while self.current is None:  # it may have ended again before this has its turn
                    if self._moved:
                        raise BackplaneUnavailableError("its slots are elsewhere now")
                    if not self._open:
                        raise PoolClosedError("not started, or stopped")
                    await self._changed.wait()
        except TimeoutError:
            raise self.unavailable() from self.last_error
        return self.current

    async def connected_soon(self, deadline: float) -> None:
        """As :meth:`connected`, but raise at once when none has been up for a moment.

        For newcomers: another node may take them, and they learn at once that this one cannot.
        """
        if self.current is None:
            await self.connected(min(deadline, self._down_since + A_MOMENT))

    # -- commands --------------------------------------------------------------------------

    async def call(self, deadline: float, *arguments: Argument) -> Any:
        """One command; raises BackplaneUnavailableError when it was not answered in time."""
        commands = (await self.connected(deadline)).commands("")
        async with self.ending_at(deadline, maybe_executed=True):
            return await commands.call(*arguments)

    async def script(self, deadline: float, call: ScriptCall) -> Any:
        """One of our scripts, as :meth:`call`."""
        commands = (await self.connected(deadline)).commands("")
        async with self.ending_at(deadline, maybe_executed=True):
            return await commands.script(call)

    # -- errors ----------------------------------------------------------------------------

    def ending_at(
        self, deadline: Deadline, *, maybe_executed: bool
    ) -> AbstractAsyncContextManager[None]:
        """:func:`.calls.ending_at` with an error that says why Redis does not answer."""
        return ending_at(deadline, partial(self._unanswered, maybe_executed=maybe_executed))

    def in_vain(self, *, maybe_executed: bool = False) -> BackplaneUnavailableError:
        """The error for a wait that has timed out and sent no command by itself."""
        if self.current is None and not maybe_executed:
            return self.unavailable()
        return self._unanswered(maybe_executed=maybe_executed)

    def unavailable(self) -> BackplaneUnavailableError:
        """The error when no generation came up in time."""
        reason = self.outage.reason or f"no link to Redis at {self.outage.where} yet"
        return BackplaneUnavailableError(reason)

    def _unanswered(self, *, maybe_executed: bool) -> BackplaneUnavailableError:
        silent = f"Redis at {self.outage.where} did not answer in time"
        what = "not done in time" if self.outage.reason else silent
        return self.outage.error(what, maybe_executed=maybe_executed)
