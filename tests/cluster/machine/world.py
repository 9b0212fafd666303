"""A small cluster, everything that may be done to it, and an account of what was done."""

import asyncio
import math
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cluster_pool import (
    BackplaneUnavailableError,
    ClusterPoolError,
    Connection,
    IdTakenError,
    Limits,
    SendResult,
)
from cluster_pool.core.config import Timing
from cluster_pool.testing import FAST, FakeWebSocket
from tests.cluster.machine.loop import Process
from tests.cluster.machine.processes import Node, Processes
from tests.cluster.machine.registry import Raw, look
from tests.clusters import Pool

MOST = 2
"""Connections of a user."""


@dataclass(eq=False)
class Client:
    """A client that wants to be a member, from its first attempt on.

    A *guest* is a client that is at ``home`` elsewhere, by the same connection, and joins besides.
    """

    node: Node
    connection: Connection
    websocket: FakeWebSocket
    key: tuple[str, str]
    takeover: bool
    began: float
    home: "Client | None" = None
    by: Node | None = None
    """The node that had it join; None: its own connection did."""
    user: str | None = None
    """The person, who may have several; of a guest: None."""
    told: bool = False
    """Whether the connection was told that it has lost this membership alone."""
    ended: float = math.inf
    """The time after which the attempt can change nothing any more."""
    gone: float = math.inf
    """The time from which it certainly owned nothing, because it left or its node ended."""
    joined: bool = False
    leaves: bool = False
    attempt: asyncio.Task[None] = field(init=False)

    @property
    def settled(self) -> bool:
        """Whether it was told to be a member of a living node, and has not begun to leave."""
        if not self.joined or self.leaves or self.told or not self.node.alive:
            return False
        return self.home is None or (self.home.settled and self.websocket.closed is None)

    @property
    def may_stay(self) -> bool:
        """Whether it has not certainly failed, left, or learnt that it has lost its place."""
        failed = self.attempt.done() and not self.joined
        return not (failed or self.leaves or self.told)


@dataclass(eq=False)
class Message:
    """A message, its receivers, and the answer to its sender. ``id`` is empty for a broadcast, and
    ``namespace``, too, for a message to a user."""

    number: int
    sender: Node
    namespace: str
    id: str
    user: str | None = None
    result: Any = None


@dataclass(eq=False)
class World(Processes[Node]):
    """While all is calm ``owners`` says exactly who owns what."""

    timing: Timing = FAST
    clients: list[Client] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    owners: dict[tuple[str, str], Client] = field(default_factory=dict)
    closed: set[tuple[str, str]] = field(default_factory=set)
    kicked: set[str] = field(default_factory=set)
    attempts: list[Client] = field(default_factory=list)
    """Attempts whose answers were not checked yet."""
    lost: set[str] = field(default_factory=set)
    """Incarnations whose data Redis has lost."""
    unrest: dict[Any, Any] = field(default_factory=dict)
    """The counters of each node at the time when all became calm."""

    FAULTS: ClassVar = ("crash", "cut", "freeze", "hold", "hold down", "hold up", "refuse")
    """The possible faults of one node."""

    def look(self) -> Raw:
        """The registry as it is."""
        return look(self.raw, self.keys)

    # -- nodes -----------------------------------------------------------------------------

    async def start(self, name: str) -> Node:
        """A new process under this node id; one that crashed may have a lease still."""
        network = await self.network(self.backend)
        limits = Limits(user_connections=MOST)
        settings = {"timing": self.timing, "prefix": self.keys.prefix, "limits": limits}
        pool = Pool(network.url, node_id=name, **settings)
        node = Node(name, network, Process(), pool)
        await self.within(self.timing.lease * 2 + 5, node.process.spawn(pool.start()))
        self.nodes.append(node)
        return node

    async def stop(self, node: Node) -> None:
        """SIGTERM: it leaves in an orderly way, if it can."""
        if not self.calm:
            self.troubles.add("ended")
        await self.within(30, node.process.spawn(node.pool.stop()))
        node.ended = self.now
        await node.network.refuse()
        for client in self.of(node):
            client.leaves = True
            client.gone = node.ended + (self.timing.lease if self.troubles else 0)
            if self.owners.get(client.key) is client:
                del self.owners[client.key]

    async def crash(self, node: Node) -> None:
        """SIGKILL: its sockets are reset, and nothing of it ever runs again."""
        self.troubles.add("ended")
        node.ended = self.now
        await node.network.refuse()
        await node.process.kill()
        for client in self.of(node):
            client.gone = node.ended + self.timing.lease

    async def fault(self, node: Node, fault: str) -> None:
        """One of :attr:`FAULTS`."""
        if fault == "crash":
            await self.crash(node)
            return
        self.troubles.add(fault)
        await self.disturb(node, fault)

    def flush(self) -> None:
        """FLUSHALL. Until a node has noticed, it holds what is not registered."""
        self.wiped()
        self.raw.flushall()

    def wiped(self) -> None:
        """Redis has lost what these incarnations had registered."""
        self.troubles.add("wiped")
        self.lost |= {node.pool.statistics()["incarnation"] for node in self.alive}

    def forget_scripts(self) -> None:
        """SCRIPT FLUSH."""
        self.troubles.add("scripts")
        self.raw.script_flush()

    async def kill_all(self) -> None:
        """Leave no task and no socket behind, whatever state all is in."""
        for node in self.nodes:
            await node.network.refuse()
            await node.process.kill()

    def of(self, node: Node) -> list[Client]:
        return [
            client for client in self.clients if client.node is node and client.gone == math.inf
        ]

    # -- members ---------------------------------------------------------------------------

    def join(
        self, node: Node, key: tuple[str, str], takeover: bool, user: str | None = None
    ) -> Client:
        """Begin to claim."""
        websocket = FakeWebSocket()
        connection = Connection(key[1], key[0], websocket, user=user)
        connection.on("left", lambda namespace, _: self._lost(connection, namespace))
        client = Client(node, connection, websocket, key, takeover, self.now, user=user)
        return self._attempt(client)

    def visit(self, home: Client, namespace: str, takeover: bool, by: Node | None = None) -> Client:
        """Begin to join a namespace beside the home, under the same id, perhaps from afar."""
        of = home.node, home.connection, home.websocket
        guest = Client(*of, (namespace, home.key[1]), takeover, self.now, home, by)
        return self._attempt(guest)

    def _attempt(self, client: Client) -> Client:
        self.clients.append(client)
        self.attempts.append(client)
        client.attempt = self._begin(client.node, self._join(client))
        return client

    def _lost(self, connection: Connection, namespace: str) -> None:
        guest = self.latest(connection, namespace)
        assert guest is not None
        guest.told = True

    def latest(self, connection: Connection, namespace: str) -> Client | None:
        """The last attempt of a connection on a namespace, if there was one."""
        found = (one for one in reversed(self.clients) if one.connection is connection)
        return next((one for one in found if one.key[0] == namespace), None)

    def family(self, client: Client) -> list[Client]:
        """Every attempt with the same connection."""
        return [one for one in self.clients if one.connection is client.connection]

    def ends(self, client: Client) -> None:
        """A client ends; with its home end its visits."""
        for one in self.family(client) if client.home is None else [client]:
            one.leaves = True
            if self.owners.get(one.key) is one:
                del self.owners[one.key]

    async def _join(self, client: Client) -> None:
        rule = "takeover" if client.takeover else "reject"
        try:
            if client.home is None:
                await client.node.pool.new_connection(client.connection, on_conflict=rule)
            elif client.by is None:
                await client.connection.join(client.key[0], on_conflict=rule)
            else:
                joining = client.by.pool.join(*client.home.key, client.key[0], on_conflict=rule)
                if await joining is not SendResult.DELIVERED:
                    raise IdTakenError(client.key[0], client.key[1])
            client.joined = True
            client.ended = self.now
        except BaseException as error:
            unsure = isinstance(error, BackplaneUnavailableError | asyncio.CancelledError)
            client.ended = max(self.now, client.began + self.timing.timeout) if unsure else self.now
            raise

    def leave(self, client: Client) -> asyncio.Task[bool]:
        """Begin to release; gives whether that emptied the namespace."""
        leaving = [client] if client.home is not None else self.family(client)
        for one in leaving:
            one.leaves = True
        return self._begin(client.node, self._leave(client, leaving))

    async def _leave(self, client: Client, leaving: list[Client]) -> bool:
        emptied: list[bool] = []

        def last() -> None:
            emptied.append(True)

        if client.home is None:
            await client.node.pool.remove_connection(client.connection, last)
        else:
            await client.connection.leave(client.key[0], on_empty_namespace=last)
        for one in leaving:
            one.gone = min(one.gone, self.now)
        return bool(emptied)

    def inform(self, client: Client, info: object) -> asyncio.Task[bool]:
        """Begin to replace the info of a member; gives whether Redis has it."""

        async def told() -> bool:
            try:
                await client.connection.update_info(info, namespace=client.key[0])
            except ClusterPoolError:
                return False  # Redis is away, or the membership has ended meanwhile
            return True

        return self._begin(client.node, told())

    def close(self, node: Node, key: tuple[str, str]) -> asyncio.Task[SendResult]:
        """Begin to close the owner of an id."""
        self.closed.add(key)
        return self._begin(node, node.pool.close(*key, confirm=True))

    def kick(self, node: Node, user: str) -> asyncio.Task[int]:
        """Begin to close every connection of a user."""
        self.kicked.add(user)
        return self._begin(node, node.pool.close_user(user))

    def standing(self, user: str) -> set[Client]:
        """The connections of a user, while all is calm."""
        return {one for one in self.owners.values() if one.user == user}

    # -- messages --------------------------------------------------------------------------

    def send(self, node: Node, key: tuple[str, str], confirm: bool) -> asyncio.Task[Message]:
        """Begin to send to one."""
        message = Message(next(self._numbers), node, *key)
        self.messages.append(message)
        work = node.pool.send(*key, str(message.number), confirm=confirm)
        return self._begin(node, self._sent(message, work))

    def broadcast(self, node: Node, namespace: str) -> asyncio.Task[Message]:
        """Begin to send to all."""
        message = Message(next(self._numbers), node, namespace, "")
        self.messages.append(message)
        work = node.pool.broadcast_message(namespace, str(message.number))
        return self._begin(node, self._sent(message, work))

    def send_user(self, node: Node, user: str) -> asyncio.Task[Message]:
        """Begin to send to all connections of a user."""
        message = Message(next(self._numbers), node, "", "", user)
        self.messages.append(message)
        work = node.pool.send_user(user, str(message.number), confirm=True)
        return self._begin(node, self._sent(message, work))

    async def _sent(self, message: Message, work: Coroutine[Any, Any, Any]) -> Message:
        try:
            message.result = await work
        except BackplaneUnavailableError as error:
            message.result = error
        return message

    def got(self, message: Message) -> list[Client]:
        """The clients that received it, each as often as it came."""
        text, found = str(message.number), list[Client]()
        for client in self.clients:
            if client.home is None:
                of = self.latest(client.connection, message.namespace) or client
                found += [of] * client.websocket.sent.count(text)
        return found
