"""A Redis Cluster of processes of this machine, whose nodes fail and whose slots move by order."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self, TypeAlias

from tools.harness.members import Make, Member, remap, start_all, valkey, wait_until
from tools.harness.network import Network
from tools.harness.partition import Partition, Way, address_of
from tools.harness.ports import HOST, free_ports

SLOTS = 16384
FORM_TIMEOUT = 20.0
MIGRATE_TIMEOUT_MS = 5000
KEYS_AT_ONCE = 1000

Ranges: TypeAlias = "list[tuple[int, int, tuple[str, ...]]]"
"""First slot, last slot, and the ids of the nodes that have them, the primary's first."""


class RedisCluster:
    """A cluster; ``with RedisCluster() as redis: … redis.url``. It is whole when it is entered.

    Args:
        make: makes its servers.
        options: of each server's command line.
        primaries: among which the slots are divided evenly, in their order.
        replicas: of each primary.
        node_timeout: seconds of silence after which a node holds another one for failing. A
            primary that is killed is replaced one to three seconds later.
        apart: the nodes reach each other through proxies, so that :meth:`cut_off` works.

    Attributes:
        nodes: the primaries at the start, then their replicas, in the same order.
    """

    def __init__(
        self,
        make: Make = valkey,
        *options: str,
        primaries: int = 3,
        replicas: int = 1,
        node_timeout: float = 2.0,
        apart: bool = False,
    ) -> None:
        self._primaries = primaries
        count = primaries * (1 + replicas)
        ports = free_ports(2 * count)
        own = free_ports(2 * count) if apart else ports
        ways = [Way(at % count, ports[at], own[at]) for at in range(2 * count)]
        self._partition = Partition(ways if apart else ())
        self.nodes = []
        for way, bus in zip(ways[:count], ways[count:], strict=True):
            server = make(
                *("--port", str(way.port), "--bind", HOST, "--cluster-enabled", "yes"),
                *("--cluster-port", str(bus.port), "--cluster-config-file", "nodes.conf"),
                *("--cluster-node-timeout", str(round(node_timeout * 1000))),
                *("--repl-diskless-sync-delay", "0", *_announcing(way, bus), *options),
            )
            self.nodes.append(Member(server, way.announced))
        self._buses = dict(zip(self.nodes, ports[count:], strict=True))

    def __enter__(self) -> Self:
        try:
            self._form()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for node in self.nodes:
            node.server.__exit__()
        self._partition.__exit__()

    @property
    def url(self) -> str:
        """For ``--redis``: every node, dead or alive."""
        return self._url([node.port for node in self.nodes])

    def _url(self, ports: Sequence[int]) -> str:
        places = ",".join(f"{HOST}:{port}" for port in ports)
        return f"redis+cluster://{self.nodes[0].server.user_info}{places}"

    def network(self) -> Network:
        """A network before all nodes, whose faults concern those alone who use its URL."""

        def through(ports: Sequence[int]) -> str:
            return f"{self._url(ports)}?address_remap={remap(self.nodes, ports)}"

        return Network([node.server.path for node in self.nodes], through)

    # -- its beginning ---------------------------------------------------------------------

    def _form(self) -> None:
        """Start the servers, and make a cluster of them."""
        self._partition.__enter__()
        start_all(self.nodes)
        for node in self.nodes:
            node.id = node.call("CLUSTER", "MYID")
        first, *others = self.nodes
        for at, node in enumerate(self.nodes, 1):
            node.call("CLUSTER", "SET-CONFIG-EPOCH", at)
        for other in others:
            first.call("CLUSTER", "MEET", HOST, other.port, self._buses[other])
        primaries = self.nodes[: self._primaries]
        for at, node in enumerate(primaries):
            bounds = [SLOTS * number // self._primaries for number in (at, at + 1)]
            node.call("CLUSTER", "ADDSLOTSRANGE", bounds[0], bounds[1] - 1)
        wait_until(self._all_have_met, "all nodes know each other", FORM_TIMEOUT)
        for at, node in enumerate(self.nodes[self._primaries :]):
            node.call("CLUSTER", "REPLICATE", primaries[at % self._primaries].id)
        self.wait_until_whole()

    def _all_have_met(self) -> bool:
        ids = {node.id for node in self.nodes}
        return all(ids <= set(_ids(node)) for node in self.nodes)

    # -- what it is --------------------------------------------------------------------------

    def slot_of(self, key: str) -> int:
        """The slot of a key or a channel, as the server hashes it."""
        return int(self._any_node().call("CLUSTER", "KEYSLOT", key))

    def primary_of(self, key: str) -> Member:
        """The primary that has the slot of a key or a channel now."""
        return self.owner(self.slot_of(key))

    def owner(self, slot: int) -> Member:
        """The primary that has a slot, by what a node that lives knows."""
        for first, last, ids in self.ranges():
            if first <= slot <= last:
                return self.with_id(ids[0])
        raise LookupError(f"nobody has slot {slot}")

    def ranges(self) -> Ranges:
        """Slots and their nodes, by what a node that lives knows."""
        return _ranges(self._any_node())

    @property
    def primaries(self) -> list[Member]:
        """Those that have slots, in the order of their first ones."""
        found = [self.with_id(ids[0]) for _, _, ids in self.ranges()]
        return list(dict.fromkeys(found))

    def replicas_of(self, primary: Member) -> list[Member]:
        """The replicas of a primary that has slots; those that are known to be well."""
        for _, _, ids in self.ranges():
            if ids[0] == primary.id:
                return [self.with_id(id) for id in ids[1:]]
        return []

    def wait_until_whole(self, seconds: float = FORM_TIMEOUT) -> None:
        """Block until all that run say the same of all slots, are well, and replicas in sync."""
        wait_until(self._is_whole, "every slot served, every replica in sync", seconds)

    def _is_whole(self) -> bool:
        alive = [node for node in self.nodes if node.server.running]
        maps = [_ranges(node) for node in alive]
        if any(one != maps[0] for one in maps) or _covered(maps[0]) != SLOTS:
            return False
        listed = {id for _, _, ids in maps[0] for id in ids}
        ports = {self.with_id(ids[0]).port for _, _, ids in maps[0]}
        return listed == {node.id for node in alive} and all(
            "cluster_state:ok" in str(node.says("CLUSTER", "INFO"))
            and (node.port in ports or any(node.follows(port) for port in ports))
            for node in alive
        )

    def flush(self) -> None:
        """Remove every key of every primary."""
        for node in self.primaries:
            node.call("FLUSHALL")

    # -- what happens to it ------------------------------------------------------------------

    def kill(self) -> None:
        """SIGKILL all nodes; what they held is gone, but for their snapshots and their places."""
        for node in self.nodes:
            node.server.kill()

    def start(self, *, empty: bool = True) -> None:
        """Start all nodes again, and block until they are whole: for two seconds at least."""
        self.launch(empty=empty)
        self.wait_until_it_answers()

    def launch(self, *, empty: bool = True) -> None:
        """Start all nodes again, without waiting."""
        for node in self.nodes:
            node.server.launch(empty=empty)

    def wait_until_it_answers(self) -> None:
        """Block until all nodes have started, and are whole."""
        for node in self.nodes:
            node.server.wait_until_it_answers()
        self.wait_until_whole()

    def command(self, *words: str) -> str:
        """Send one command to the primary that has its key or channel; the raw reply.

        PUBLISH is SPUBLISH here.
        """
        name = {"PUBLISH": "SPUBLISH"}.get(words[0], words[0])
        return self.primary_of(words[1]).server.command(name, *words[1:])

    def path_of(self, key: str) -> Path:
        """The unix socket of the primary that has a key or a channel now."""
        return self.primary_of(key).server.path

    def freeze(self) -> None:
        """SIGSTOP all nodes. After the node time-out they will not believe each other's states."""
        for node in self.nodes:
            node.server.freeze()

    def thaw(self) -> None:
        """SIGCONT all nodes."""
        for node in self.nodes:
            node.server.thaw()

    def save(self) -> None:
        """Write the snapshots from which :meth:`start` may begin."""
        for node in self.nodes:
            node.server.save()

    def cut_off(self, node: Member) -> None:
        """Let nothing pass between a node and the others until :meth:`heal`.

        What comes through :meth:`network` still reaches it.
        """
        self._partition.cut_off(self.nodes.index(node))

    def heal(self) -> None:
        """Undo :meth:`cut_off`."""
        self._partition.cut_off(None)

    def wait_for_another(self, old: Member, seconds: float = FORM_TIMEOUT) -> None:
        """Block until all others that answer say that others than ``old`` serve every slot."""

        def another() -> bool:
            views = [_ranges(one) for one in self.nodes if one is not old and one.server.answering]
            return bool(views) and all(
                _covered(view) == SLOTS and all(ids[0] != old.id for _, _, ids in view)
                for view in views
            )

        wait_until(another, f"another primary than {old}", seconds)

    def promote(self, replica: Member, how: str = "", seconds: float = FORM_TIMEOUT) -> None:
        """Make a replica the primary of its slots, and block until every node says so.

        Args:
            replica: of a primary that has slots.
            how: "" agrees with the primary first, FORCE does without it, TAKEOVER also without
                the other primaries.
            seconds: raise TimeoutError after that time.
        """
        replica.call("CLUSTER", "FAILOVER", *filter(None, [how]))
        wait_until(lambda: self._all_follow(replica), f"{replica} is a primary", seconds)

    def _all_follow(self, primary: Member) -> bool:
        return all(
            any(ids[0] == primary.id for _, _, ids in _ranges(node))
            for node in self.nodes
            if node.server.running and node.says("PING")
        )

    def move_slot(self, slot: int, target: Member) -> None:
        """Move a slot with all its keys."""
        SlotMove(self, slot, target).finish()

    def _any_node(self) -> Member:
        """A node that answers, and that holds the cluster for well unless none does."""
        answers = None
        for node in self.nodes:
            info = str(node.says("CLUSTER", "INFO")) if node.server.answering else ""
            if "cluster_state:ok" in info:
                return node
            answers = answers or (node if "cluster_state" in info else None)
        if answers is None:
            raise LookupError("no node of the cluster answers")
        return answers

    def with_id(self, id: str) -> Member:
        """The node that calls itself so."""
        return next(node for node in self.nodes if node.id == id)


class SlotMove:
    """A slot on its way to another primary, as ``valkey-cli --cluster reshard`` moves it.

    Made, it has begun: the source answers ASK for keys that it no longer has, and TRYAGAIN for
    several keys of which it has some. It goes no further until it is told, a key at a time.

    Args:
        cluster: where it happens.
        slot: which.
        target: the primary that gets it.
    """

    def __init__(self, cluster: RedisCluster, slot: int, target: Member) -> None:
        self.slot = slot
        self.source = cluster.owner(slot)
        self.target = target
        self._cluster = cluster
        target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", self.source.id)
        self.source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)

    @property
    def keys(self) -> list[str]:
        """The keys of the slot that are at the source, a thousand at most."""
        found: list[str] = self.source.call("CLUSTER", "GETKEYSINSLOT", self.slot, KEYS_AT_ONCE)
        return sorted(found)

    def carry(self, key: str) -> bool:
        """Move one key; False if the source did not have it."""
        return _migrate(key, self.source, self.target)

    def back(self) -> None:
        """Break off: keys that were carried come back, and the slot stays at the source."""
        self.source.call("CLUSTER", "SETSLOT", self.slot, "STABLE")  # else it answers ASK
        for key in self.target.call("CLUSTER", "GETKEYSINSLOT", self.slot, KEYS_AT_ONCE):
            _migrate(key, self.target, self.source)
        self.target.call("CLUSTER", "SETSLOT", self.slot, "STABLE")

    def finish(self) -> None:
        """Carry what is left, and give the slot to the target; every primary is told."""
        while keys := self.keys:
            for key in keys:
                self.carry(key)
        others = [one for one in self._cluster.primaries if one not in (self.target, self.source)]
        for node in (self.target, self.source, *others):
            node.call("CLUSTER", "SETSLOT", self.slot, "NODE", self.target.id)


def _announcing(way: Way, bus: Way) -> tuple[str, ...]:
    if way.port == way.announced:
        return ()
    return (
        *("--bind-source-addr", address_of(way.server), "--cluster-announce-ip", HOST),
        *("--cluster-announce-port", str(way.announced)),
        *("--cluster-announce-bus-port", str(bus.announced)),
    )


def _migrate(key: str, source: Member, target: Member) -> bool:
    words = ("MIGRATE", HOST, target.port, "", 0, MIGRATE_TIMEOUT_MS, "KEYS", key)
    return bool(source.call(*words) == "OK")


def _ids(node: Member) -> Iterator[str]:
    """The nodes that a node knows by their names, and has a link to."""
    for line in str(node.says("CLUSTER", "NODES") or "").splitlines():
        id, _, flags, *rest = line.split()
        if "handshake" not in flags and ("myself" in flags or rest[4] == "connected"):
            yield id


def _ranges(node: Member) -> Ranges:
    """A node's view of the slots; empty for one that does not answer."""
    return sorted(
        (first, last, (nodes[0][2], *sorted(node[2] for node in nodes[1:])))
        for first, last, *nodes in node.says("CLUSTER", "SLOTS") or ()
    )


def _covered(ranges: Ranges) -> int:
    return sum(last - first + 1 for first, last, _ in ranges)
