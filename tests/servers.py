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

from cluster_pool.embedded import server_binary
from tools.harness import servers
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

    def script_calls(self) -> int:
        """How many scripts it has run."""
        found = re.search(r"cmdstat_evalsha:calls=(\d+)", self.command("INFO", "commandstats"))
        return int(found[1]) if found else 0


class Cluster(RedisCluster):
    """A Redis Cluster in the place of one server; see :class:`RedisServer`.

    Its nodes judge no other dead because the machine is slow, unless they are told to.
    """

    publish = "SPUBLISH"

    def __init__(self, flavour: str = "valkey", node_timeout: float = 20.0) -> None:
        make = functools.partial(RedisServer, flavour, acl=CLUSTER_ACL)
        super().__init__(make, node_timeout=node_timeout)

    def client(self) -> AsyncClusterClient:
        """A user's own client, who may do everything."""
        return AsyncClusterClient(host=HOST, port=self.nodes[0].port)

    def sync_client(self) -> ClusterClient:
        """The same, which holds up the loop."""
        return ClusterClient(host=HOST, port=self.nodes[0].port)

    def each(self) -> list[Redis]:
        """A client for each server that has keys."""
        return [Redis(unix_socket_path=str(one.server.path)) for one in self.primaries]


class Sentinel(RedisSentinel):
    """One Redis under sentinels in the place of one server; see :class:`RedisServer`."""

    publish = "PUBLISH"

    def __init__(self, flavour: str = "valkey", down_after: float = 20.0) -> None:
        make = functools.partial(RedisServer, flavour, acl=SENTINEL_ACL)
        super().__init__(make, program=BINARIES[flavour], down_after=down_after)

    def __getattr__(self, name: str) -> Any:
        """All else is asked of the primary."""
        return getattr(self.primary.server, name)
