"""The reason why Redis does not serve a node: the same wherever it is reported, on real servers."""

import asyncio
import contextlib
import logging
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_pool import BackplaneUnavailableError, Publisher, SendResult
from cluster_pool.backplane.outage import AGAIN, Outage
from cluster_pool.testing import FAST
from tests.clusters import Pool
from tests.servers import BINARIES, RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess
from tools.harness.ports import free_port

FAULTS = {
    "OOM": (
        ("CONFIG", "SET", "maxmemory", "1"),
        ("CONFIG", "SET", "maxmemory", "0"),
        "Redis refused: OOM command not allowed when used memory > 'maxmemory'. (its memory is",
    ),
    "NOREPLICAS": (
        ("CONFIG", "SET", "min-replicas-to-write", "1"),
        ("CONFIG", "SET", "min-replicas-to-write", "0"),
        "Redis refused: NOREPLICAS Not enough good replicas to write. (too few replicas",
    ),
    "READONLY": (
        ("REPLICAOF", "127.0.0.1", "1"),
        ("REPLICAOF", "NO", "ONE"),
        "Redis refused: READONLY You can't write against a read only replica. (this is a replica",
    ),
    "MISCONF": (
        ("CONFIG", "SET", "save", "3600 1"),
        ("CONFIG", "SET", "save", ""),
        "Redis refused: MISCONF ",
    ),
    "NOPERM": (
        ("ACL", "SETUSER", "cluster_pool", "-evalsha"),
        ("ACL", "SETUSER", "cluster_pool", "+evalsha"),
        "Redis refused: NOPERM ",
    ),
    "NOPERM in a script": (
        ("ACL", "SETUSER", "cluster_pool", "-publish"),
        ("ACL", "SETUSER", "cluster_pool", "+publish"),
        "Redis refused: ERR ",
    ),
    "WRONGPASS": (
        ("ACL", "SETUSER", "cluster_pool", "resetpass", ">another"),
        ("ACL", "SETUSER", "cluster_pool", ">known-to-tests"),
        "WRONGPASS invalid username-password pair or user is disabled. (check the user name",
    ),
}


def break_it(server: RedisServer, fault: str) -> None:
    """Make Redis refuse from now on."""
    if fault == "MISCONF":  # a background save fails: its folder is gone
        gone = server.folder / "gone"
        gone.mkdir()
        server.command("CONFIG", "SET", "dir", str(gone))
        gone.rmdir()
        server.command(*FAULTS[fault][0])
        server.command("BGSAVE")
    else:
        server.command(*FAULTS[fault][0])
    if fault == "WRONGPASS":
        server.command("CLIENT", "KILL", "USER", "cluster_pool")


def mend_it(server: RedisServer, fault: str) -> None:
    """Undo the fault."""
    if fault == "MISCONF":
        server.command("CONFIG", "SET", "dir", str(server.folder))
        server.command("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
    server.command(*FAULTS[fault][1])


@pytest.fixture(params=list(BINARIES))
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(request.param, "--enable-protected-configs", "yes") as made:
        yield made


@pytest.mark.parametrize("fault", FAULTS)
@async_test
async def test_a_refusal_is_told_in_the_same_words_everywhere(
    server: RedisServer, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """In the log, in the statistics, and in the errors of waiting calls; with advice."""
    words = FAULTS[fault][2]
    caplog.set_level(logging.INFO, "cluster_pool")
    async with Pool(server.url, node_id="node-1", timing=FAST) as pool:
        await pool.host("n", "alice")
        assert pool.trouble == ""
        assert pool.statistics()["trouble"] is None
        break_it(server, fault)
        await eventually(lambda: words in pool.trouble)
        await eventually(lambda: not pool._parts.lease.held or pool._parts.backplane.shard.up)
        trouble = pool.statistics()["trouble"]
        assert trouble["reason"] == pool.trouble
        assert not pool.ready
        assert any(words in record.getMessage() for record in caplog.records)
        if fault != "NOPERM in a script":  # whose words differ with the command
            await eventually(lambda: not pool._parts.lease.held)
            with pytest.raises(BackplaneUnavailableError) as caught:
                await pool.host("n", "bob", timeout=0.2)
            assert words in str(caught.value)
            with pytest.raises(BackplaneUnavailableError) as caught:
                await Pool(server.url, node_id="node-2", timing=FAST).start()
            assert words in str(caught.value)
        mend_it(server, fault)
        await eventually(lambda: pool.ready and not pool.trouble, 20)
        assert pool.statistics()["trouble"] is None
        assert "is there again, after" in caplog.text
        assert await pool.send("n", "alice", "hi")
        assert "deaf" not in caplog.text


@pytest.mark.parametrize("fault", ["OOM", "NOREPLICAS"])
@async_test
async def test_a_member_of_a_node_without_a_lease_is_unreachable_not_absent(
    server: RedisServer, fault: str
) -> None:
    """Its client is connected; an id without a member is still absent."""
    results: set[SendResult] = set()
    async with Pool(server.url, node_id="node-1", timing=FAST) as pool, Publisher(server.url) as by:
        await pool.host("n", "alice")
        break_it(server, fault)
        await eventually(lambda: not pool._parts.lease.held)

        async def is_unreachable() -> bool:
            with contextlib.suppress(BackplaneUnavailableError):
                results.add(await by.send("n", "alice", "hi"))
            return SendResult.UNREACHABLE in results

        await eventually(is_unreachable)
        assert await by.send("n", "nobody", "hi") is SendResult.ABSENT
        mend_it(server, fault)
        await eventually(lambda: pool.ready and not pool.trouble, 20)
        assert await by.send("n", "alice", "hi", confirm=True) is SendResult.DELIVERED
        assert SendResult.ABSENT not in results


@pytest.mark.parametrize("fault", ["OOM", "WRONGPASS"])
@async_test
async def test_a_probe_for_orchestrators_says_why(own_server: RedisServer, fault: str) -> None:
    """`/readyz` and `/status` of a real node have the same sentence as its log.

    Without Redis's address, which clients of `/readyz` need not know.
    """
    words = FAULTS[fault][2]
    arguments = ("--lease", "2", "--admin-port", "0")
    with NodeProcess(own_server.url, *arguments) as node:
        break_it(own_server, fault)
        answer = await eventually(
            lambda: (said := node.get("/readyz"))[0] == 503 and words in said[1] and said
        )
        assert str(own_server.folder) not in answer[1]
        status = node.get("/status", node.listening["admin_port"])[1]
        assert words in status
        mend_it(own_server, fault)
        await eventually(lambda: node.get("/readyz")[0] == 200, 20)
        node.signal(15)
        assert words in node.finish()[1]


@async_test
async def test_reconnects_that_fail_are_logged_once_per_reason(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Once when it appears, not with each attempt."""
    async with (
        own_server.network() as proxy,
        Pool(proxy.url, node_id="node-1", timing=FAST) as pool,
    ):
        caplog.clear()
        own_server.kill()
        await proxy.cut()
        before = proxy.accepted
        await eventually(lambda: proxy.accepted >= before + 5, 20)
        told = [record.getMessage() for record in caplog.records]
        assert 1 <= len(told) <= 4, told
        assert len(set(told)) == len(told), told
        own_server.start()
        await eventually(lambda: pool.ready)


def test_a_reason_that_lasts_is_logged_every_30_seconds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most ten lines in that time, whatever comes and goes."""
    now = 1000.0
    monkeypatch.setattr("cluster_pool.backplane.outage.monotonic", lambda: now)
    outage = Outage("redis://there")
    while now < 1000 + 4 * AGAIN:
        outage.fail("link", "refused", 1.0)
        now += 1.0
    assert len(caplog.records) == 4
    assert caplog.records[-1].getMessage() == "refused; for 90 s now"
    caplog.clear()
    caplog.set_level(logging.INFO)
    until = now + AGAIN
    while now < until:
        outage.recover("link")
        outage.fail("link", f"refused {now}", 1.0)
        now += 0.5
    assert len(caplog.records) <= 2 * 2 * 10


CLUSTERS = {"no slots": "", "one primary": "all", "another primary": "half"}


@pytest.mark.parametrize("kind", CLUSTERS)
@pytest.mark.parametrize("flavour", BINARIES)
@async_test
async def test_a_cluster_is_named_as_such(flavour: str, kind: str) -> None:
    """Also one with a single primary, which would execute some of our commands."""
    bus = ("--cluster-port", str(free_port()))
    with RedisServer(flavour, "--cluster-enabled", "yes", *bus) as server:
        if CLUSTERS[kind]:
            last = {"all": "16383", "half": "8000"}[CLUSTERS[kind]]
            server.command("CLUSTER", "ADDSLOTSRANGE", "0", last)
        for redis in (Pool(server.url), Publisher(server.url)):
            with pytest.raises(BackplaneUnavailableError, match="is a node of a Redis Cluster"):
                await redis.start()
        server.command("ACL", "SETUSER", "cluster_pool", "-hello")
        if kind != "one primary":  # what it refuses says so, too
            with pytest.raises(BackplaneUnavailableError, match="is a node of a Redis Cluster"):
                await Pool(server.url, timing=FAST).start()


@pytest.mark.parametrize("flavour", BINARIES)
@async_test
async def test_a_sentinel_is_named_as_such(flavour: str) -> None:
    """The given port is that of a Sentinel."""
    with sentinel(flavour) as port:
        publisher = Publisher(f"redis://127.0.0.1:{port}")
        with pytest.raises(BackplaneUnavailableError, match="this is a Sentinel"):
            await publisher.start()


@contextlib.contextmanager
def sentinel(flavour: str) -> Iterator[int]:
    """A Sentinel that watches nothing; gives its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sentinel.conf"
        path.write_text(f"port {port}\nbind 127.0.0.1\ndir {folder}\n")
        process = subprocess.Popen(
            [BINARIES[flavour], str(path), "--sentinel"], stdout=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 10
            while not _listens(port):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield port
        finally:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@async_test
async def test_sends_that_time_out_say_why(own_server: RedisServer) -> None:
    """A call that waits while Redis is away gets the reason, from a publisher too."""
    async with Publisher(own_server.url) as publisher:
        own_server.kill()
        await eventually(lambda: publisher.trouble)
        for call in (publisher.send("n", "a", "x"), publisher.count("n")):
            with pytest.raises(BackplaneUnavailableError, match="connecting to /"):
                await asyncio.wait_for(call, 10)
        own_server.start()
        await eventually(lambda: not publisher.trouble)
