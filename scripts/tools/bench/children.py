"""Programs of the bench as processes: one JSON line asks, one JSON line answers."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self

LINE_LIMIT = 64 * 1024 * 1024
ANSWER_TIMEOUT = 300.0
"""Seconds after which a program that says nothing is given up."""


class Child:
    """A running program; it ends when its standard input does, so it cannot outlive us."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.pid = process.pid
        self.hello: dict[str, Any] = {}
        self._process = process

    @classmethod
    async def start(
        cls,
        program: str,
        *arguments: str,
        package: str = "tools.bench",
        fds: tuple[int, ...] = (),
    ) -> Self:
        """Start ``PACKAGE.PROGRAM`` and wait until it says that it is ready."""
        command = [sys.executable, "-P", "-m", f"{package}.{program}", *arguments]
        return await cls.launch(program, command, fds)

    @classmethod
    async def launch(cls, name: str, command: Sequence[str], fds: tuple[int, ...] = ()) -> Self:
        """Start any program that speaks as ours do, and wait until it says that it is ready."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
            pass_fds=fds,
            start_new_session=True,  # Ctrl-C is ours to deal with; they end with their input
        )
        child = cls(name, process)
        try:
            child.hello = await child._answer()
        except BaseException:
            await child.kill()
            raise
        return child

    async def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """Have something done, and wait for the answer."""
        self.tell(do, **fields)
        return await self._answer()

    def tell(self, do: str, **fields: Any) -> None:
        """Have something done; :meth:`answer` is for later."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")

    async def answer(self) -> dict[str, Any]:
        """The answer to what was told."""
        return await self._answer()

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(ANSWER_TIMEOUT):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the {self.name} program ended by itself: see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def stop(self) -> None:
        """Let it end; kill it if it does not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(20):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


def say(**fields: Any) -> None:
    """In the program: answer, or report readiness."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


async def obey(handlers: Mapping[str, Callable[..., Awaitable[dict[str, Any]]]]) -> None:
    """In an asyncio program: do what is asked until standard input ends."""
    reader = asyncio.StreamReader(limit=LINE_LIMIT)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        fields = json.loads(line)
        say(**await handlers[fields.pop("do")](**fields))


class Gate:
    """A pipe over which the clients tell a sender, in one byte, that everything has arrived.

    The sender then knows that nothing is in flight, at the price of one wake-up per round.
    """

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()

    def close(self) -> None:
        """Close both ends here; the programs have their own."""
        os.close(self.read_end)
        os.close(self.write_end)


class Opened:
    """In an asyncio program: the reading end of a :class:`Gate`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._event = asyncio.Event()
        self._ended = False
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def _read(self) -> None:
        if not os.read(self._descriptor, 1):
            self._ended = True
            asyncio.get_running_loop().remove_reader(self._descriptor)
        self._event.set()

    async def wait(self, timeout: float) -> bool:
        """Wait for the next byte; False when none came in time, or none will."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return not self._ended
