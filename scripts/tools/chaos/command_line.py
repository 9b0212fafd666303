"""The command line, called again and again as a person or a timer would; never through a proxy."""

import asyncio
import contextlib
import json
import random
import sys
import time
from collections.abc import Sequence

from tools.chaos.books import BROADCAST, COMMAND, COMMAND_KINDS, CONFIRM
from tools.chaos.ledger import Ledger

LIMIT = 60.0
"""Seconds within which a command must have ended: its time-out is 2, and Python has to start, which
takes its time while everything else is busy."""
NO_REDIS = 3
"""The exit status of a command that could not reach Redis: what it said may have been sent."""


class CommandLine:
    """Runs ``cluster-pool send`` and ``broadcast`` one after another, and checks each answer.

    Each run is a sender of its own, with one message.

    Args:
        redis: the URL for ``--redis``.
        members: to whom it sends: namespaces and ids.
    """

    def __init__(
        self, redis: str, members: Sequence[tuple[str, str]], ledger: Ledger, seed: int
    ) -> None:
        self._redis = redis
        self._members = members
        self._ledger = ledger
        self._random = random.Random(seed)
        self._runs = 0
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self, pause: float) -> None:
        """Run a command, and another so many seconds after each."""
        self._ending.clear()
        self._task = asyncio.create_task(self._run(pause))

    async def end(self) -> None:
        """Run no more, and wait for the answer of the last."""
        self._ending.set()
        task, self._task = self._task, None
        if task is not None:
            await task

    async def _run(self, pause: float) -> None:
        while not self._ending.is_set():
            await self._call()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)

    async def _call(self) -> None:
        self._runs += 1
        sender, number = f"{COMMAND}-{self._runs}", self._runs
        kind = self._random.choice(COMMAND_KINDS)
        namespace, id = self._random.choice(self._members)
        if kind == BROADCAST:
            words, id = ["broadcast", namespace], ""
        else:
            words = ["send", namespace, id, *["--confirm"] * (kind == CONFIRM)]
        begun = time.monotonic()
        self._ledger.told(sender, "begun", [kind, number, namespace, id, begun])
        outcome = await self._outcome(*words, f"{sender} {number}")
        ended = time.monotonic()
        if not outcome:
            outcome = "unknown"
            about = " ".join(words)
            self._ledger.told(sender, "unanswered", [about, ended, ended - begun])
        self._ledger.told(sender, "ended", [number, ended, outcome])

    async def _outcome(self, *words: str) -> str:
        """Run a command; gives what it said, or "" if it does not end."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "cluster_pool", *words),
            *("--redis", self._redis, "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(LIMIT):
                out, errors = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return ""
        if process.returncode == NO_REDIS:
            return "unknown"
        try:
            said = json.loads(out)
        except ValueError:
            self._ledger.wrong.append(
                f"{' '.join(words)} ended with {process.returncode} and said: {errors.decode()}"
            )
            return "unknown"
        if "result" in said:
            return str(said["result"])
        return "heard" if said["nodes"] else "unheard"
