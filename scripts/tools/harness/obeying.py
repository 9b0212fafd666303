"""The inside of a :class:`tools.harness.programs.Program`: do what is asked, and tell.

It needs the standard library alone, so that it also runs where ``cluster_pool`` is not installed.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

LINE_LIMIT = 256 * 1024 * 1024


def tell(what: str, fields: Any) -> None:
    """Say something at once; a SIGKILL later does not take it back."""
    os.write(sys.stdout.fileno(), json.dumps([what, fields]).encode() + b"\n")


def answer(fields: Any = None) -> None:
    """Answer what was asked; the first time, say that the program is ready."""
    tell("answer", fields)


async def obey(handlers: Mapping[str, Callable[..., Awaitable[Any]]]) -> None:
    """Do what is asked until standard input ends."""
    reader = asyncio.StreamReader(limit=LINE_LIMIT)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        fields = json.loads(line)
        answer(await handlers[fields.pop("do")](**fields))


async def obey_object(*objects: object) -> None:
    """The same by the public methods of objects."""
    await obey(
        {
            name: getattr(commands, name)
            for commands in objects
            for name in dir(commands)
            if not name.startswith("_")
        }
    )
