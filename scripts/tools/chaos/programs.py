"""Nodes and clients as processes: JSON lines ask and answer, and nodes also tell by themselves."""

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

from cluster_pool.embedded import bound_to_parent

LINE_LIMIT = 256 * 1024 * 1024
ANSWER_TIMEOUT = 30.0
STOP_TIMEOUT = 20.0

Tell = Callable[[str, list[Any]], None]


class ProgramEndedError(Exception):
    """A program ended although nobody wanted it to, or says nothing any more."""


class Program:
    """A running ``tools.chaos.NAME``; it dies with this process.

    What it tells by itself goes to ``on_told(what, fields)``, in order with its answers; also what
    it had written when it was killed.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, on_told: Tell) -> None:
        self._name = name
        self._process = process
        self._on_told = on_told
        self._asked: deque[asyncio.Future[Any]] = deque()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, name: str, *arguments: str, on_told: Tell) -> Self:
        """Start it; :meth:`answer` is then what it says when it is ready."""
        process = await asyncio.create_subprocess_exec(
            *bound_to_parent([sys.executable, "-P", "-m", f"tools.chaos.{name}", *arguments]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
            start_new_session=True,  # Ctrl-C is for us to deal with
        )
        return cls(name, process, on_told)

    async def ask(self, do: str, **fields: Any) -> Any:
        """Have something done, and wait for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> Any:
        """The answer to what was asked, or what it says first."""
        answer = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        if self._reader.done():
            raise ProgramEndedError(f"the {self._name} program has ended")
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await answer
        except TimeoutError:
            raise ProgramEndedError(f"the {self._name} program does not answer") from None

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if not line.endswith(b"\n"):
                break  # cut off by a SIGKILL
            what, fields = json.loads(line)
            if what != "answer":
                self._on_told(what, fields)
            elif not (answer := self._asked.popleft()).done():
                answer.set_result(fields)
        ended = ProgramEndedError(f"the {self._name} program ended: see above")
        for answer in self._asked:
            if not answer.done():
                answer.set_exception(ended)
                answer.exception()  # perhaps nobody waits any more

    def freeze(self) -> None:
        """SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL, and read what it had written before."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reader

    async def stop(self) -> str:
        """Let it end by itself; kill it if it does not. Gives what was wrong, "" for nothing."""
        assert self._process.stdin is not None
        if self._process.returncode is not None:
            return f"had ended before with {self._process.returncode}"
        self._process.stdin.close()
        wrong = ""
        try:
            self.thaw()
            async with asyncio.timeout(STOP_TIMEOUT):
                status = await self._process.wait()
            wrong = f"ended with {status}" if status else ""
        except TimeoutError:
            wrong = f"did not stop within {STOP_TIMEOUT:g} s"
        await self.kill()
        return wrong


def tell(what: str, fields: Any) -> None:
    """In the program: say something at once; a SIGKILL later does not take it back."""
    os.write(sys.stdout.fileno(), json.dumps([what, fields]).encode() + b"\n")


async def obey(handlers: Mapping[str, Callable[..., Awaitable[Any]]]) -> None:
    """In the program: do what is asked until standard input ends."""
    reader = asyncio.StreamReader(limit=LINE_LIMIT)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        fields = json.loads(line)
        tell("answer", await handlers[fields.pop("do")](**fields))
