"""Programs as processes that are asked over standard input, a line of JSON each.

A program answers in lines of ``[what, fields]``, and may tell something else by itself in between.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Self

from cluster_pool.embedded import bound_to_parent
from tools.harness.obeying import LINE_LIMIT

SCRIPTS = Path(__file__).parents[2]
PATIENCE = 90.0
"""Seconds after which a program that does not answer is given up."""
STOP_TIMEOUT = 20.0

Tell = Callable[[str, list[Any]], None]


def python_path() -> str:
    """The PYTHONPATH with which a program finds what is found here."""
    return os.pathsep.join(dict.fromkeys([str(SCRIPTS), *filter(None, sys.path)]))


class ProgramEndedError(Exception):
    """A program ended although nobody wanted it to, or says nothing any more."""


def _unwanted(what: str, fields: list[Any]) -> None:
    """Ignore reports of a program that should only answer."""


class Program:
    """A running program; it ends with its standard input, so it cannot outlive this process.

    What it tells by itself goes to ``on_told(what, fields)``, in order with its answers; also what
    it had written when it was killed.

    Attributes:
        hello: what it said when it was ready.
        patience: seconds after which it is given up when it does not answer.
    """

    hello: Any = None

    def __init__(
        self, name: str, process: asyncio.subprocess.Process, on_told: Tell, patience: float
    ) -> None:
        self.pid = process.pid
        self._name = name
        self._process = process
        self._on_told = on_told
        self.patience = patience
        self._frozen = False
        self._asked: deque[asyncio.Future[Any]] = deque()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, module: str, *arguments: str, **options: Any) -> Self:
        """Run a module of ours with this interpreter; see :meth:`launch`."""
        command = [sys.executable, "-P", "-m", module, *arguments]
        return await cls.launch(module, command, **options)

    @classmethod
    async def launch(
        cls,
        name: str,
        command: Sequence[str],
        *,
        fds: tuple[int, ...] = (),
        on_told: Tell = _unwanted,
        patience: float = PATIENCE,
    ) -> Self:
        """Run any program that speaks as ours do, and wait until it is ready.

        Python finds there what it finds here.
        """
        process = await asyncio.create_subprocess_exec(
            *bound_to_parent([*command]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
            pass_fds=fds,
            env={**os.environ, "PYTHONPATH": python_path()},
            start_new_session=True,  # Ctrl-C is for us to deal with
        )
        program = cls(name, process, on_told, patience)
        try:
            program.hello = await program._in_time(program._answer())
        except BaseException:
            await program.kill()
            raise
        return program

    async def ask(self, do: str, **fields: Any) -> Any:
        """Have something done, and wait for the answer."""
        return await self._in_time(self.tell(do, **fields))

    def tell(self, do: str, **fields: Any) -> "asyncio.Future[Any]":
        """Have something done; what it gives is the answer, for later."""
        answer = self._answer()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        return answer

    def _answer(self) -> "asyncio.Future[Any]":
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._reader.done():
            raise ProgramEndedError(f"{self._name} has ended")
        self._asked.append(answer)
        return answer

    async def _in_time(self, answer: "asyncio.Future[Any]") -> Any:
        try:
            async with asyncio.timeout(self.patience):
                return await answer
        except TimeoutError:
            raise ProgramEndedError(f"{self._name} does not answer") from None

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
        ended = ProgramEndedError(f"{self._name} ended by itself: see above")
        for answer in self._asked:
            if not answer.done():
                answer.set_exception(ended)
                answer.exception()  # perhaps nobody waits any more

    def freeze(self) -> None:
        """SIGSTOP."""
        self._frozen = True
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT; nothing for one that is not frozen.

        A signal to a program that has just ended would reap it, and asyncio not know its status.
        """
        if self._frozen:
            self._frozen = False
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


@contextlib.asynccontextmanager
async def program(module: str, *arguments: str, **options: Any) -> AsyncIterator[Program]:
    """A program of ours from its start to its stop."""
    started = await Program.start(module, *arguments, **options)
    try:
        yield started
    finally:
        await started.stop()
