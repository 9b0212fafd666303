"""Real Redis and Valkey for tests, with the least privileges that we ship."""

import functools
import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.cluster import RedisCluster as AsyncClusterClient
from redis.cluster import RedisCluster as ClusterClient

from cluster_pool.backplane.slots import slot_of
from cluster_pool.embedded import server_binary
from tools.harness import servers
from tools.harness.members import Member
from tools.harness.ports import HOST
from tools.harness.redis_cluster import RedisCluster
from tools.harness.redis_sentinel import RedisSentinel

DEPLOY = Path(__file__).parents[1] / "deploy"
SHIPPED_ACL = DEPLOY / "redis.acl"
SENTINEL_ACL, CLUSTER_ACL = DEPLOY / "redis-sentinel.acl", DEPLOY / "redis-cluster.acl"
PASSWORD = "known-to-tests"
CLUSTER, SENTINEL = "cluster", "sentinel"
"""Kinds of backends beside the binaries, of which they are made."""

BINARIES = {"valkey": server_binary()}
if shutil.which("redis-server"):
    BINARIES["redis"] = str(shutil.which("redis-server"))


class RedisServer(servers.RedisServer):
    """A server of one flavour; clients of its URLs have the shipped privileges alone.

    The password is one that tests know. :meth:`command` and unix sockets without a user are free.

    Args:
        acl: the file with the privileges.
    """

    publish = "PUBLISH"

    user_info = f"cluster_pool:{PASSWORD}@"

    def __init__(self, flavour: str, *options: str, acl: Path = SHIPPED_ACL) -> None:
        self.flavour = flavour
        super().__init__(BINARIES[flavour], *options)
        digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
        rules = re.sub(r"#[0-9a-f]{64}", f"#{digest}", acl.read_text())
        users = self.folder / "users.acl"
        users.write_text(f"user default on nopass ~* &* +@all\n{rules}")
        self._options = ("--aclfile", str(users), *options)

    @property
    def url(self) -> str:
        return f"unix://cluster_pool@{self.path}?password={PASSWORD}"

    def client(self) -> AsyncRedis:
        """A user's own client, who may do everything."""
        return AsyncRedis(unix_socket_path=str(self.path))

    def sync_client(self) -> Redis:
        """The same, which holds up the loop."""
        return Redis(unix_socket_path=str(self.path))

    def each(self) -> list[Redis]:
        """A client for each server that has keys."""
        return [self.sync_client()]

    @property
    def cli(self) -> list[str]:
        """The words with which a person calls redis-cli."""
        return ["redis-cli", "-s", str(self.path)]

    def script_calls(self) -> int:
        """How many scripts it has run."""
        found = re.search(r"cmdstat_evalsha:calls=(\d+)", self.command("INFO", "commandstats"))
        return int(found[1]) if found else 0


class _ClusterClient(ClusterClient):
    def keys(self, pattern: str = "*", **options: Any) -> Any:
        """Those of all primaries; redis-py asks any node."""
        return super().keys(pattern, target_nodes=ClusterClient.PRIMARIES, **options)


class Cluster(RedisCluster):
    """A Redis Cluster in the place of one server; see :class:`RedisServer`.

    Its nodes judge no other dead because the machine is slow, unless they are told to.
    """

    publish = "SPUBLISH"

    def __init__(self, flavour: str = "valkey", node_timeout: float = 20.0) -> None:
        make = functools.partial(RedisServer, flavour, acl=CLUSTER_ACL)
        super().__init__(make, node_timeout=node_timeout)
        self.flavour = CLUSTER
        self.harmed = False
        self._known: list[tuple[int, int, Member]] = []

    def client(self) -> AsyncClusterClient:
        """A user's own client, who may do everything."""
        return AsyncClusterClient(host=HOST, port=self.nodes[0].port)

    def sync_client(self) -> ClusterClient:
        """The same, which holds up the loop."""
        return _ClusterClient(host=HOST, port=self.nodes[0].port)

    def each(self) -> list[Redis]:
        """A client for each server that has keys."""
        return [Redis(unix_socket_path=str(one.server.path)) for one in self.primaries]

    @property
    def cli(self) -> list[str]:
        """The words with which a person calls redis-cli."""
        return ["redis-cli", "-c", "-p", str(self.nodes[0].port)]

    def command(self, *words: str) -> str:
        """One command where its key is, or at every node; the raw reply of a primary.

        What PUBSUB is asked about ordinary channels is asked about sharded ones, of all of them.
        """
        if words[0] == "PUBSUB":
            return self._channels(words)
        if any("{" in word for word in words[1:2]):
            reply = self._primary(words[1]).server.command(*words)
            if reply.startswith("-MOVED"):
                self._known = []
                reply = self._primary(words[1]).server.command(*words)
            return reply
        self.harmed |= words[0] in ("ACL", "CONFIG")
        primaries = self.primaries
        nodes = primaries if words[0] == "FLUSHALL" else self.nodes
        replies = {node: node.server.command(*words) for node in nodes}
        return replies[primaries[0]]

    def launch(self, *, empty: bool = True) -> None:
        """Start all nodes again. They die with the thread that did it: no other test has them."""
        self.harmed = True
        super().launch(empty=empty)

    def _primary(self, key: str) -> Member:
        """As :meth:`primary_of`, from what is known, since an event loop may wait for it."""
        self._known = self._known or [
            (first, last, self.with_id(ids[0])) for first, last, ids in self.ranges()
        ]
        slot = slot_of(key)
        return next(node for first, last, node in self._known if first <= slot <= last)

    def _channels(self, words: tuple[str, ...]) -> str:
        about = (words[0], f"SHARD{words[1]}", *words[2:])
        replies = [node.server.command(*about) for node in self.primaries]
        parts = [reply.partition("\r\n") for reply in replies]
        if words[1] == "NUMSUB":
            return max(replies, key=lambda reply: int(reply.split(":")[-1]))
        count = sum(int(head[1:]) for head, _, _ in parts)
        return f"*{count}\r\n" + "".join(rest for _, _, rest in parts)

    def script_calls(self) -> int:
        """How many scripts its primaries have run."""
        return sum(one.server.script_calls() for one in self.primaries)

    def is_as_new(self) -> bool:
        """Make it as it was at the start, if that can be done."""
        self.thaw()
        if self.harmed or not all(node.server.running for node in self.nodes):
            return False
        self.wait_until_whole()
        self.flush()
        return True


class Sentinel(RedisSentinel):
    """One Redis under sentinels in the place of one server; see :class:`RedisServer`."""

    publish = "PUBLISH"

    def __init__(self, flavour: str = "valkey", down_after: float = 20.0) -> None:
        make = functools.partial(RedisServer, flavour, acl=SENTINEL_ACL)
        super().__init__(make, program=BINARIES[flavour], down_after=down_after)
        self.harmed = False

    def command(self, *words: str) -> str:
        """One command at the primary; its raw reply."""
        self.harmed |= words[0] in ("ACL", "CONFIG")
        return super().command(*words)

    def launch(self, *, empty: bool = True) -> None:
        """Start all again. They die with the thread that did it: no other test has them."""
        self.harmed = True
        super().launch(empty=empty)

    def is_as_new(self) -> bool:
        """Make it as it was at the start, if that can be done."""
        self.thaw()
        if self.harmed or not all(one.server.running for one in self._all):
            return False
        self.wait_until_whole()
        self.command("FLUSHALL")
        return True

    def __getattr__(self, name: str) -> Any:
        """All else is asked of the primary."""
        return getattr(self.primary.server, name)
