"""The compose files as they are, but without containers: commands, users and rights are real."""

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis import Redis

from cluster_pool import BackplaneUnavailableError
from cluster_pool.backplane.address import Address
from tests.clusters import Pool
from tests.compose import Compose
from tests.servers import CLUSTER_ACL, DEPLOY, SENTINEL_ACL, SHIPPED_ACL
from tests.support import async_test, eventually
from tools.harness.ports import HOST

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not shutil.which("redis-server"), reason="they call redis-server by name"),
]
PASSWORDS = {
    "POOL_PASSWORD": "of-the-nodes",
    "REPLICA_PASSWORD": "of-the-replicas",
    "SENTINEL_PASSWORD": "of-the-sentinels",
    "OPERATOR_PASSWORD": "of-the-operator",
    "ADMIN_TOKEN": "of-the-operators",
    "GRAFANA_PASSWORD": "of-grafana",
}


@contextlib.asynccontextmanager
async def _nodes(url: str) -> AsyncIterator[list[Pool]]:
    async with contextlib.AsyncExitStack() as stack:
        pools = [Pool(url, node_id=f"node-{number}") for number in (1, 2)]
        for pool in pools:
            await pool.start(wait=30)
            stack.push_async_callback(pool.stop)
        yield pools


def _knows_all(port: int) -> bool:
    """Whether a Sentinel knows the others and the replica; it asks for that every 10 s."""
    login = {"username": "cluster_pool", "password": PASSWORDS["POOL_PASSWORD"]}
    with Redis(host=HOST, port=port, protocol=2, **login) as client:
        state: Any = client.execute_command("SENTINEL MASTER", "main")
    return int(state["num-slaves"]) == 1 and int(state["num-other-sentinels"]) == 2


@pytest.mark.slow
@async_test
async def test_the_services_for_sentinel_survive_the_loss_of_the_primary() -> None:
    """With the least rights for nodes, replicas and Sentinels."""
    with Compose("compose-sentinel.yaml", **PASSWORDS) as compose:
        for name in compose.ports:
            compose.start(name)
        sentinels = [port for name, port in compose.ports.items() if name.startswith("sentinel")]
        url = compose.url("node-1")
        assert url == compose.url("node-2")
        async with _nodes(url) as (one, two):
            bob = await two.host("n", "bob")
            assert await one.send("n", "bob", "before", confirm=True)
            await eventually(lambda: all(map(_knows_all, sentinels)), seconds=30)
            compose.kill("redis-1")
            await eventually(lambda: not one.ready)

            async def reached() -> bool:
                try:
                    await one.send("n", "bob", "after", confirm=True)
                except BackplaneUnavailableError:
                    return False
                return one.ready and two.ready

            await eventually(reached, seconds=30)
            assert bob.sent[0] == "before"
            assert bob.sent[-1] == "after"
            compose.start("redis-1")  # it comes back as a primary, and the Sentinels make it follow
            await asyncio.sleep(2)
            assert await one.send("n", "bob", "again", confirm=True)
            assert await one.count("n") == 1


@pytest.mark.slow
@async_test
async def test_the_services_for_a_cluster_make_one() -> None:
    """Each primary has a replica, and clients find it by the given names."""
    with Compose("compose-cluster.yaml", **PASSWORDS) as compose:
        for name in compose.ports:
            compose.start(name)
        compose.start("operator")
        assert await asyncio.to_thread(compose.wait, "operator") == 0
        (first, *_) = Address(compose.url("node-1"), 2).seeds
        connection = await first.open()

        async def slots() -> list[list[bytes]]:
            """The hosts of each range of slots, its primary's first."""
            await connection.send_command("CLUSTER", "SLOTS")
            found = await connection.read_response()
            return [[node[0] for node in nodes] for _, _, *nodes in found]

        async def spread() -> bool:
            return await slots() == [[HOST.encode()] * 2] * 3

        await eventually(spread, seconds=30)
        await connection.disconnect(nowait=True)
        async with _nodes(compose.url("node-1")) as (one, two):
            bobs = [await two.host(f"n{at}", "bob") for at in range(9)]  # in several slots
            for at in range(9):
                assert await one.send(f"n{at}", "bob", "hello", confirm=True)
            assert all(bob.sent == ["hello"] for bob in bobs)


def test_the_rights_of_nodes_are_the_same_everywhere() -> None:
    """A cluster's nodes may also read its map."""
    rules = SHIPPED_ACL.read_text().splitlines()
    assert SENTINEL_ACL.read_text().splitlines()[:1] == rules
    assert CLUSTER_ACL.read_text().splitlines()[0].replace(" +cluster|slots", "") == rules[0]


@pytest.mark.parametrize("file", ["compose.yaml", "compose-sentinel.yaml", "compose-cluster.yaml"])
def test_names_in_a_compose_file_exist(file: str) -> None:
    """Files beside it, services that are waited for, and a password for each user of the rights."""
    compose = Compose(file, **PASSWORDS)
    for name, service in compose.services.items():
        assert set(service.get("depends_on", ())) <= set(compose.services), name
        for found in re.findall(r"/deploy/([\w.-]+)", str(service.get("command"))):
            rules = (DEPLOY / found).read_text()
            places = set(re.findall(r"#(\w)\1{63}", rules))
            assert places == set(re.findall(r"#(\w)\\{64\\}", service["command"][2])), name
