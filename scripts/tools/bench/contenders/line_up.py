"""Who is measured beside us: what each needs, how it is run, what its clients speak."""

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tools.bench import engineio, machine
from tools.bench.contenders import install

Command = Callable[[str, str, int], list[str]]
"""(URL of Redis, path of its unix socket, gate) to the command line of a process."""


@dataclass(frozen=True)
class Installed:
    """How to run a contender, and what it is made of."""

    command: Command
    versions: str


@dataclass(frozen=True)
class Contender:
    """One of the others.

    Attributes:
        name: for the table.
        loop: its event loop.
        install: make its environment, or raise :class:`install.NotInstalledError`.
        path: of its WebSockets.
        packets: its clients speak Socket.IO.
        nodes: two processes with Redis between them; otherwise one alone, which only broadcasts.
        slow: it gets fewer messages per round.
        note: what else a reader must know.
    """

    name: str
    loop: str
    install: Callable[[], Awaitable[Installed]]
    path: str = "/"
    packets: bool = False
    nodes: bool = True
    slow: bool = False
    note: str = ""


SOCKETIO = ("socket.io", "@socket.io/redis-adapter", "ioredis")
# Of the Redis clients that the adapter documents, the one that took less CPU for targeted sends.
UVICORN = ("uvicorn[standard]", "redis[hiredis]")
UNDER_UVICORN = ("uvicorn", "websockets", "uvloop", "redis", "hiredis")


async def _socketio_node() -> Installed:
    folder = await install.node_environment("socketio", SOCKETIO)
    program = Path(__file__).with_name("socketio_node.cjs")

    def command(redis: str, path: str, gate: int) -> list[str]:
        return ["node", str(program), str(folder), path, str(gate)]

    return Installed(command, install.node_versions(folder, (*SOCKETIO, "ws")))


def _python(
    name: str, program: str, packages: tuple[str, ...], told: tuple[str, ...]
) -> Callable[[], Awaitable[Installed]]:
    async def installed() -> Installed:
        python = await install.python_environment(name, (*packages, *UVICORN))

        def command(redis: str, path: str, gate: int) -> list[str]:
            module = f"tools.bench.contenders.{program}"
            return [str(python), "-P", "-m", module, redis, str(gate)]

        return Installed(command, install.python_versions(python, (*told, *UNDER_UVICORN)))

    return installed


def _websockets(loop: str) -> Callable[[], Awaitable[Installed]]:
    async def installed() -> Installed:
        def command(redis: str, path: str, gate: int) -> list[str]:
            module = "tools.bench.contenders.websockets_alone"
            return [sys.executable, "-P", "-m", module, loop, str(gate)]

        return Installed(command, f"websockets {machine.package_version('websockets')}")

    return installed


def line_up(loop: str) -> list[Contender]:
    """All of them; ``loop`` is ours, for those that run in our environment."""
    return [
        Contender(
            "socket.io",
            "node",
            _socketio_node,
            path=engineio.PATH,
            packets=True,
        ),
        Contender(
            "websockets.broadcast",
            loop,
            _websockets(loop),
            nodes=False,
            note="one process, no Redis",
        ),
        Contender(
            "python-socketio",
            "uvloop",
            _python(
                "python-socketio",
                "socketio_python",
                ("python-socketio",),
                ("python-socketio", "python-engineio"),
            ),
            path=engineio.PATH,
            packets=True,
            slow=True,
            note="no limit to its Redis connections",
        ),
        Contender(
            "channels_redis",
            "uvloop",
            _python(
                "channels",
                "channels_layer",
                ("channels", "channels_redis"),
                ("channels", "channels_redis", "django"),
            ),
            slow=True,
            note="pub/sub layer, AsyncWebsocketConsumer",
        ),
    ]
