"""Who is measured beside us: what each needs, how it is run, what its clients speak."""

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tools.bench import engineio, machine
from tools.bench.contenders import install
from tools.bench.contenders.install import Installed

Install = Callable[[], Awaitable[Installed]]


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
    install: Install
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
    command = ["node", str(program), str(folder)]
    return Installed(command, install.node_versions(folder, (*SOCKETIO, "ws")))


def python_program(program: str, packages: tuple[str, ...], *also_told: str) -> Install:
    """A program of this folder in an environment with these packages."""

    async def installed() -> Installed:
        python = await install.python_environment(program, (*packages, *UVICORN))
        command = [str(python), "-P", "-m", f"tools.bench.contenders.{program}"]
        told = (*packages, *also_told, *UNDER_UVICORN)
        return Installed(command, install.python_versions(python, told))

    return installed


def _websockets(loop: str) -> Install:
    async def installed() -> Installed:
        command = [sys.executable, "-P", "-m", "tools.bench.contenders.websockets_alone", loop]
        return Installed(command, f"websockets {machine.package_version('websockets')}")

    return installed


def line_up(loop: str) -> list[Contender]:
    """All of them; ``loop`` is ours, for the one that runs in our environment."""
    return [
        Contender("socket.io", "node", _socketio_node, path=engineio.PATH, packets=True),
        Contender(
            *("websockets.broadcast", loop, _websockets(loop)),
            nodes=False,
            note="one process, no Redis",
        ),
        Contender(
            *("python-socketio", "uvloop"),
            python_program("socketio_python", ("python-socketio",), "python-engineio"),
            path=engineio.PATH,
            packets=True,
            slow=True,
            note="no limit to its Redis connections",
        ),
        Contender(
            *("channels_redis", "uvloop"),
            python_program("channels_layer", ("channels", "channels_redis"), "django"),
            slow=True,
            note="pub/sub layer, AsyncWebsocketConsumer",
        ),
    ]
