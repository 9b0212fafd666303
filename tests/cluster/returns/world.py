"""A small cluster, clients that go and come back, and an account of all that was sent."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from cluster_pool import BackplaneUnavailableError, ClusterPoolError, Connection, Gap, History
from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.results import SendResult
from cluster_pool.exceptions import ConnectionClosedError
from cluster_pool.local.outbox import ping_unreceived
from cluster_pool.testing import FAST
from tests.cluster.machine import processes
from tests.cluster.machine.loop import Process
from tests.cluster.machine.registry import look
from tests.cluster.returns.wire import Wire
from tests.cluster.returns.witness import Spot, Witness
from tests.clusters import Pool

HOME, SIDE = "home", "side"
"""Two namespaces: that of each connection, and one that it may join."""
BOUNDS = History(messages=40, seconds=30, bytes=100_000, replay_targeted_without_user=True)
HISTORY = {"home": BOUNDS, "side": BOUNDS}
LIMITS = Limits(outbox_bytes=3_000, message_bytes=1_000)


@dataclass(eq=False, repr=False)
class Node(processes.Node):
    """A node; whether it ever lost Redis, or stood still."""

    interrupted: bool = False


@dataclass(eq=False)
class Message:
    """A message; its text is its number. ``id`` is empty for a broadcast.

    Attributes:
        result: the answer to the sender; an error; None while there is none.
    """

    number: int
    namespace: str
    id: str = ""
    excluded: tuple[str, ...] = ()
    size: int = 0
    result: Any = None

    @property
    def refused(self) -> bool:
        """Whether its sender knows that it may not arrive."""
        return isinstance(self.result, BaseException) or self.result in (
            SendResult.ABSENT,
            SendResult.UNREACHABLE,
            SendResult.REFUSED,
            SendResult.TIMED_OUT,
        )


Reader = tuple[str, str | None]
"""An id and a user: who comes back to what it has missed."""


@dataclass(eq=False, repr=False)
class Leg:
    """One connection of a client."""

    reader: Reader
    node: Node
    wire: Wire
    task: asyncio.Task[None] = field(init=False)
    number: int
    connection: Connection | None = None
    stays: list["Stay"] = field(default_factory=list)
    excused: dict[str, Spot] = field(default_factory=dict)
    """By namespace: its node has told in a gap that some up to here may be missing."""
    proven: set[int] = field(default_factory=set)
    """Messages that nobody may send again: the node knows that the client has them."""

    def __repr__(self) -> str:
        code = None if self.connection is None else self.connection.close_code
        return f"<leg {self.number} of {self.reader} at {self.node}, closed {code}>"

    def prove(self, count: int | None = None) -> None:
        """Its first texts, or all, are known to have arrived."""
        self.proven.update(map(int, self.wire.got[:count]))

    def stay_in(self, namespace: str) -> "Stay | None":
        """Its last stay in a namespace."""
        return next((one for one in reversed(self.stays) if one.namespace == namespace), None)

    @property
    def open(self) -> bool:
        """Whether it was let in, and is not over as far as anybody knows."""
        connection = self.connection
        return connection is not None and not connection.closed and self.node.alive


@dataclass(eq=False, repr=False)
class Stay:
    """The membership of a leg in one namespace.

    Attributes:
        recovered: what its application was told of what it had missed.
        begun, opened: the last message before it was asked for, and when it was answered.
        claimed: the time of its claim, in µs of Redis.
        spoilt: what has been wrong since the reader was last there.
        left: whether it has left the namespace by itself.
    """

    leg: Leg
    namespace: str
    begun: Spot
    opened: Spot
    claimed: int
    recovered: bool | None
    spoilt: set[str]
    asked_at: float
    left: bool = False
    checked: bool = False

    def __repr__(self) -> str:
        since = f"after {self.spoilt}" if self.spoilt else ""
        return f"<stay of {self.leg} in {self.namespace}, told {self.recovered} {since}>"


@dataclass(eq=False)
class World(processes.Processes[Node]):
    """Nodes, and connections that come and go."""

    timing: Timing = FAST
    legs: list[Leg] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    ever: set[str] = field(default_factory=set)
    """All troubles that there were."""
    spoilt: dict[tuple[str, Reader], set[str]] = field(default_factory=dict)
    """By namespace and reader: what was done to Redis since its last stay began."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.witness = Witness(self.raw, self.keys, (HOME, SIDE))

    def trouble(self, what: str) -> None:
        """Something is wrong from now on, until all is calm again."""
        self.troubles.add(what)
        self.ever.add(what)
        for spoilt in self.spoilt.values():
            spoilt.add(what)

    # -- nodes -------------------------------------------------------------------------------

    async def start(self, name: str) -> Node:
        """A new process under this node id."""
        network = await self.network(self.backend)
        pool = Pool(
            network.url,
            node_id=name,
            timing=self.timing,
            prefix=self.keys.prefix,
            history=HISTORY,
            limits=LIMITS,
        )
        node = Node(name, network, Process(), pool)
        pool.on("gap", lambda gap: self._excuse(node, gap))
        await self.within(20, node.process.spawn(pool.start()))
        self.nodes.append(node)
        return node

    def _excuse(self, node: Node, gap: Gap) -> None:
        """A node tells what its members have missed."""
        self.witness.look()
        for namespace in (HOME, SIDE):
            if gap.namespaces.keys() & {namespace, ""}:
                for leg in self.legs:
                    if leg.node is node:
                        leg.excused[namespace] = self.witness.last(namespace)

    async def stop(self, node: Node) -> None:
        """A deploy: it closes its clients, waits for their answers, and ends."""
        self.trouble("stopped")
        stopping = node.process.spawn(node.pool.stop())
        while not stopping.done():
            for leg in self.legs:
                if leg.node is node:
                    leg.wire.take()
            await asyncio.wait((stopping,), timeout=0.05)
        await self.end(node)

    async def kill(self, node: Node) -> None:
        """SIGKILL."""
        self.trouble("killed")
        await self.end(node)

    async def end(self, node: Node) -> None:
        """Nothing of a node ever runs again."""
        node.ended = self.now
        await node.network.refuse()
        for leg in self.legs:
            if leg.node is node:
                leg.wire.reset_now()
        await node.process.kill()

    async def mend_all(self) -> None:
        """All networks carry again."""
        for node in self.alive:
            await self.mend(node)

    async def interrupt(self, node: Node, how: str) -> None:
        """A node loses Redis, or stands still."""
        self.trouble("interrupted")
        node.interrupted = True
        await self.disturb(node, how)

    async def kill_all(self) -> None:
        """Leave no task and no socket behind."""
        for node in self.alive:
            await self.end(node)
        self.raw.close()

    # -- Redis ---------------------------------------------------------------------------------

    def delete(self, *kinds: str) -> None:
        """Keys beside the namespaces are deleted."""
        self.raw.delete(*[self.key(one, kind) for one in (HOME, SIDE) for kind in kinds])

    def key(self, namespace: str, kind: str) -> str:
        """The name of a key beside a namespace."""
        return f"{self.keys.prefix}:{{{namespace}}}:{kind}"

    def trim(self) -> None:
        """Half of each history is cut off."""
        for namespace in (HOME, SIDE):
            key = self.key(namespace, "history")
            self.raw.xtrim(key, maxlen=self.raw.xlen(key) // 2, approximate=False)

    def begin_anew(self) -> None:
        """The histories begin another epoch with the next message."""
        for namespace in (HOME, SIDE):
            if self.raw.exists(self.key(namespace, "numbers")):
                self.raw.hset(self.key(namespace, "numbers"), "epoch", "")

    def grow_old(self) -> None:
        """The positions that are stored become the older ones, and those before are forgotten.

        Owners store theirs again, as they do two or three times in such a time, if they can.
        """
        for namespace in (HOME, SIDE):
            if self.raw.exists(self.key(namespace, "positions")):
                self.raw.hincrby(self.key(namespace, "positions"), "", -120_000)
        there = {(one.namespace, one.leg.reader) for one in self.stays if one.leg.open}
        for key, spoilt in self.spoilt.items():
            if key not in there or not self.calm:
                spoilt.add("time")
        for node in self.alive:
            node.pool._parts.accounts.renew()

    def unrest(self) -> str:
        """Why the cluster is not as it should be; "" when it is."""
        unready = [node for node in self.alive if not node.pool.ready]
        if unready:
            return f"{unready} not ready"
        registry = look(self.raw, self.keys)
        leased = {node.pool.statistics()["incarnation"] for node in self.alive}
        if registry.dead or registry.leased != leased:
            return f"dead: {registry.dead}, leases: {registry.leased}, not {leased}"
        held = {
            (one.namespace, one.id): one.claim
            for node in self.alive
            for one in node.pool._parts.table.memberships()
            if one.claim is not None and not one.namespace.startswith("~")
        }
        registered = {
            (namespace, id): claim
            for namespace, claims in registry.members.items()
            for id, claim in claims.items()
            if not namespace.startswith("~")
        }
        if held != registered:
            return f"held {held}, registered {registered}"
        for namespace in {key[0] for key in held}:
            if not self.raw.hexists(self.key(namespace, "numbers"), "history"):
                return f"no history of {namespace}"
        return ""

    # -- clients -----------------------------------------------------------------------------

    def come(self, reader: Reader, node: Node, on_conflict: str = "takeover") -> Leg:
        """A client opens a connection with a node."""
        leg = Leg(reader, node, Wire(node.process.context), len(self.legs))
        self.legs.append(leg)
        leg.task = self._begin(node, self._serve(leg, on_conflict), "leg")
        return leg

    async def _serve(self, leg: Leg, on_conflict: str) -> None:
        id, user = leg.reader
        begun, asked_at = self._here(HOME), self.now
        try:
            async with leg.node.pool.accept(
                leg.wire.websocket, namespace=HOME, id=id, user=user, on_conflict=on_conflict
            ) as connection:
                leg.connection = connection
                self._stays(leg, HOME, begun, connection.recovered, asked_at)
                await connection.run()
        except ClusterPoolError:
            return

    def join(self, leg: Leg) -> asyncio.Task[bool]:
        """A client joins the other namespace besides; whether it was let in."""
        return self._begin(leg.node, self._join(leg))

    async def _join(self, leg: Leg) -> bool:
        assert leg.connection is not None
        begun, asked_at = self._here(SIDE), self.now
        try:
            recovered = await leg.connection.join(SIDE, on_conflict="takeover")
        except ClusterPoolError:
            return False
        if SIDE in leg.connection.namespaces:
            self._stays(leg, SIDE, begun, recovered, asked_at)
        return True

    def leave_side(self, leg: Leg) -> asyncio.Task[None]:
        """A client leaves the other namespace, and comes back there as a newcomer."""
        for stay in leg.stays:
            if stay.namespace == SIDE:
                stay.left = True
        assert leg.connection is not None
        return self._begin(leg.node, leg.connection.leave(SIDE))

    def _here(self, namespace: str) -> Spot:
        self.witness.look()
        return self.witness.last(namespace)

    def _stays(
        self, leg: Leg, namespace: str, begun: Spot, recovered: bool | None, asked_at: float
    ) -> None:
        memberships = leg.connection._memberships  # type: ignore[union-attr]
        claim = next((one.claim for one in memberships if one.namespace == namespace), None)
        if claim is None:
            return  # it has lost its id at once
        spoilt = self.spoilt.setdefault((namespace, leg.reader), set())
        stay = Stay(
            *(leg, namespace, begun, self._here(namespace), claim.time, recovered),
            *(set(spoilt), asked_at),
        )
        spoilt.clear()
        spoilt.update(self.troubles)
        leg.stays.append(stay)
        self.stays.append(stay)

    def ping(self, leg: Leg) -> None:
        """The keepalive of a node asks for a receipt."""
        if leg.open:
            leg.node.process.context.run(ping_unreceived, leg.connection)

    def stays_of(self, namespace: str, id: str) -> list[Stay]:
        """All stays of an id, in the order of their claims."""
        found = [one for one in self.stays if (one.namespace, one.leg.reader[0]) == (namespace, id)]
        return sorted(found, key=lambda one: one.claimed)

    # -- messages ----------------------------------------------------------------------------

    def broadcast(
        self, node: Node, namespace: str, exclude: tuple[str, ...] = (), size: int = 0
    ) -> asyncio.Task[Message]:
        """Begin to send to all but some."""
        message = self._message(Message(next(self._numbers), namespace, "", exclude, size))
        text = str(message.number).ljust(size)
        work = node.pool.broadcast_message(namespace, text, exclude=list(exclude))
        return self._begin(node, self._sent(message, work))

    def send(
        self, node: Node, namespace: str, id: str, confirm: Any, size: int = 0
    ) -> asyncio.Task[Message]:
        """Begin to send to one."""
        message = self._message(Message(next(self._numbers), namespace, id, (), size))
        text = str(message.number).ljust(size)
        work = node.pool.send(namespace, id, text, confirm=confirm)
        return self._begin(node, self._sent(message, work))

    def _message(self, message: Message) -> Message:
        self.messages.append(message)
        return message

    async def _sent(self, message: Message, work: Coroutine[Any, Any, Any]) -> Message:
        try:
            message.result = await work
        except (BackplaneUnavailableError, ConnectionClosedError) as error:
            message.result = error
        return message
