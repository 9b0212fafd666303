"""A page with sockets of the client for browsers, behind HAProxy before two nodes."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_pool import Publisher
from tests.auth.signing import SECRET
from tests.docs.devtools import Page, opened
from tests.servers import Cluster, RedisServer
from tests.support import eventually
from tools.harness.haproxy import haproxy
from tools.harness.nodes import Fleet
from tools.harness.ports import accepts, free_port

STOP = ("--announce", "1.5", "--grace", "10", "--close-rate", "20")
RULES = [
    word
    for pattern in ("lobby", "room:*")
    for word in ("--namespace-rule", f"{pattern}=join,publish,info")
]
SETUP = """
import("/cluster-socket.js").then(({ ClusterSocket }) => {
    window.sockets = {};
    window.begin = (name, url, options) => {
        const socket = sockets[name] = new ClusterSocket(url, options);
        socket.told = [];
        for (const type of ["open", "message", "lost", "left", "close"])
            socket.addEventListener(type, ({ isTrusted, ...rest }) => {
                if (rest.data instanceof Uint8Array) rest.data = [...rest.data];
                socket.told.push({ type, ...rest });
            });
    };
})
"""


class Socket:
    """One socket on a page."""

    def __init__(self, page: Page, name: str) -> None:
        self._page = page
        self._name = name

    async def do(self, script: str) -> Any:
        """The value of an expression that begins with a name of the socket's, awaited."""
        return await self._page.do(f"sockets.{self._name}.{script}")

    async def refused(self, script: str) -> Any:
        """The code by which a promise is rejected; None if it is not."""
        return await self.do(f"{script}.then(() => null, error => error.code)")

    async def told(self, *types: str) -> list[dict[str, Any]]:
        """Its events of these types so far, without their types if there is only one."""
        events: list[dict[str, Any]] = await self.do("told")
        found = [event for event in events if event["type"] in types]
        if len(types) == 1:
            for event in found:
                del event["type"]
        return found

    async def open(self) -> bool:
        """Whether it has a connection."""
        return bool(await self.do("isOpen"))


@dataclass
class Rig:
    """Two nodes, and a browser that shows a page of HAProxy's.

    Attributes:
        front: the port of HAProxy.
    """

    fleet: Fleet
    publisher: Publisher
    page: Page
    front: int

    async def begin(self, name: str, home: str = "lobby", options: str = "{}") -> Socket:
        """A new socket; ``options`` are of JavaScript."""
        url = json.dumps(f"/ws/{home}")
        await self.page.do(f"begin({name!r}, {url}, {options})")
        return Socket(self.page, name)

    async def where(self, id: str, namespace: str = "lobby") -> str | None:
        """The node of a member."""
        found = [one.node async for one in self.publisher.members(namespace) if one.id == id]
        return found[0] if found else None


@contextlib.asynccontextmanager
async def rig(redis: RedisServer | Cluster, folder: Path, *options: str) -> AsyncIterator[Rig]:
    """Nodes ``n1`` and ``n2`` that authenticate clients by :mod:`tests.auth.signing`."""
    (folder / "secret").write_text(SECRET)
    words = (*STOP, *RULES, "--jwt-key", str(folder / "secret"), *options)
    front = free_port()
    with contextlib.ExitStack() as stack:
        fleet = Fleet(redis.url, ("n1", "n2"), stack, *words)
        nobody = free_port(), free_port()  # the file that we ship has three servers
        stack.enter_context(haproxy([*fleet.addresses, nobody], front, folder, "<title>A</title>"))
        await eventually(lambda: accepts(front), 30)
        page_url = f"http://127.0.0.1:{front}/page"
        async with Publisher(redis.url) as publisher, opened(page_url, folder) as page:
            await page.do(SETUP)
            yield Rig(fleet, publisher, page, front)
