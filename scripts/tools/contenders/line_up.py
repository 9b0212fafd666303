"""The compared libraries: their needs, their start, and the protocol of their clients."""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tools.contenders import engineio

NODE_MODULES = Path(__file__).resolve().parents[3] / ".node-others" / "node_modules"
"""Where scripts/bench installs what runs in Node.js."""
UNDER_UVICORN = ("uvicorn", "websockets", "uvloop", "redis", "hiredis")
TUNED = "-tuned"


@dataclass(frozen=True)
class Contender:
    """One of the others, or ourselves.

    Attributes:
        name: for the table.
        program: a module of this folder, or a file of JavaScript.
        packages: what it is made of.
        loop: its event loop.
        path: of its WebSockets.
        packets: its clients speak Socket.IO.
        alone: one process without Redis, which only broadcasts.
        slow: it gets fewer messages per round of the bench.
        note: what else a reader must know.
    """

    name: str
    program: str
    packages: Sequence[str] = ()
    loop: str = "uvloop"
    path: str = "/"
    packets: bool = False
    alone: bool = False
    slow: bool = False
    note: str = ""

    @property
    def _javascript(self) -> bool:
        return self.program.endswith(".cjs")

    def command(self, redis: str, gate: str = "", *, tuned: bool = False) -> list[str]:
        """The command that runs a node of it."""
        if self._javascript:
            file = Path(__file__).with_name(self.program)
            return [str(shutil.which("node")), str(file), str(NODE_MODULES.parent), redis, gate]
        words = (self.program, self.loop, TUNED if tuned else "", redis, gate)
        return [sys.executable, "-P", "-m", "tools.contenders.program", *words]

    def missing(self) -> str:
        """Why it cannot run here, or ""."""
        if self._javascript and shutil.which("node") is None:
            return "there is no node here"
        absent = [name for name in self.packages if not self._version(name)]
        return f"without {', '.join(absent)}" if absent else ""

    def versions(self) -> str:
        """``NAME VERSION, …`` of what it is made of."""
        under = UNDER_UVICORN if self.packages and not (self._javascript or self.alone) else ()
        return ", ".join(f"{name} {self._version(name)}" for name in (*self.packages, *under))

    def _version(self, name: str) -> str:
        try:
            if self._javascript:
                about = json.loads((NODE_MODULES / name / "package.json").read_text())
                return str(about["version"])
            return metadata.version(name)
        except (OSError, metadata.PackageNotFoundError):
            return ""


OURS = Contender("cluster_pool", "ours", path="/ws/n")
RECOVERING = Contender(
    *("socket.io with connection state recovery", "socketio_recovering.cjs"),
    ("socket.io", "@socket.io/redis-streams-adapter", "ioredis"),
    loop="node",
    path=engineio.PATH,
    packets=True,
)
OTHERS = (
    Contender(
        *("socket.io", "socketio_node.cjs"),
        # The Redis client, of those in the adapter's documentation, that took less CPU for sends.
        ("socket.io", "@socket.io/redis-adapter", "ioredis", "ws"),
        loop="node",
        path=engineio.PATH,
        packets=True,
    ),
    Contender(
        *("websockets.broadcast", "websockets_alone", ("websockets",)),
        alone=True,
        note="one process, no Redis",
    ),
    Contender(
        *("python-socketio", "socketio_server", ("python-socketio", "python-engineio")),
        path=engineio.PATH,
        packets=True,
        slow=True,
        note="no limit to its Redis connections",
    ),
    Contender(
        *("channels_redis", "channels_layer", ("channels", "channels_redis", "django")),
        slow=True,
        note="pub/sub layer, AsyncWebsocketConsumer",
    ),
)
