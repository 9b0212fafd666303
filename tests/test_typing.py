"""A user's program under a strict type checker: all errors are found, and no others."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cluster_pool

pytestmark = pytest.mark.real

PROGRAM = """
import asyncio
from collections.abc import Sequence

from cluster_pool import (
    ClusterPool,
    Connection,
    Gap,
    NodeState,
    Publisher,
    SendResult,
    SyncPublisher,
)


async def serve(pool: ClusterPool, websocket: object) -> None:
    async with pool.accept(websocket, namespace="room", id="alice") as connection:

        @connection.on("message")
        async def said(message: str | bytes) -> None:
            await pool.broadcast_message("room", message, exclude=[connection.id])

        @connection.on("close")
        def left(code: int, reason: str) -> None:
            print(code, reason)

        @connection.on("error")
        def failed(error: Exception) -> None:
            print(error)

        connection.on("close", lambda code, reason: print(code, reason))
        await said("decorated, it is still the function that it was")
        await connection.run()


def hooks(pool: ClusterPool, gaps: list[Gap]) -> None:
    pool.on("gap", gaps.append)

    @pool.on("gap")
    def missed(gap: Gap) -> None:
        print(sum(gap.namespaces.values()))

    @pool.on("takeover")
    async def taken(connection: Connection) -> None:
        print(connection.id)

    @pool.on("state")
    def became(state: NodeState) -> None:
        print(state.value)

    pool.on("slow_consumer", lambda connection: print(connection.id))
    pool.on("empty", print)


def blocking(publisher: SyncPublisher) -> Sequence[SendResult]:
    if not publisher.broadcast_message("room", "hi", confirm=True).complete:
        return []
    if publisher.broadcast_json_message("room", {"a": 1}, exclude=["bob"], timeout=1):
        publisher.drain_node("node-1", 10, grace=60, force=True)
    return [
        publisher.send("room", "alice", "hi", confirm=True, timeout=1.5),
        publisher.send_json_then_close("room", "bob", [1], 4000, "bye", confirm=True),
    ]


async def watch(publisher: Publisher) -> None:
    async for event in publisher.watch("room"):
        if event.event == "lost":
            print(event.id)


asyncio.run(watch(Publisher()))
"""

MISTAKES = """
from cluster_pool import ClusterPool, Connection, Gap, MemberEvent, SyncPublisher


def mistakes(
    pool: ClusterPool, connection: Connection, publisher: SyncPublisher, seen: MemberEvent
) -> None:
    connection.on("mesage", print)  # wrong
    pool.on("gab", print)  # wrong
    publisher.send("room", "alice", "hi", confrim=True)  # wrong
    publisher.send("room", "alice", {"not": "a message"})  # wrong
    publisher.broadcast_message("room", "hi").complete  # wrong
    if seen.event == "gone":  # wrong
        return

    @connection.on("close")  # wrong
    def left(code: str) -> None: ...

    @connection.on("message")  # wrong
    def said(message: str) -> None: ...

    @pool.on("takeover")  # wrong
    def missed(gap: Gap) -> None: ...
"""


def check(folder: Path, program: str, *options: str) -> str:
    """The output of ``mypy --strict`` on a program."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("needs mypy")
    path = folder / "program.py"
    path.write_text(program)
    root = Path(cluster_pool.__file__).parents[1]
    environment = {} if root.name == "site-packages" else {"MYPYPATH": str(root)}
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "mypy", "--strict", "--follow-imports=silent"),
            *("--no-error-summary", "--cache-dir", os.devnull, *options, path.name),
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **environment},
    )
    assert not done.stderr, done.stderr
    return done.stdout


def test_a_users_program_passes_a_strict_type_check(tmp_path: Path) -> None:
    """Handlers keep their types under the decorators, and every call has a signature; what is
    misspelt, or takes something else than it will be called with, is found."""
    said = check(tmp_path, PROGRAM + MISTAKES)
    lines = (PROGRAM + MISTAKES).splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert {int(at) for at in re.findall(r"program\.py:(\d+): error", said)} == wrong, said
