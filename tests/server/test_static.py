"""The file that pages load from a node."""

from importlib.resources import files

import pytest

from tests.server.running import node, whole_answer
from tests.servers import RedisServer
from tests.support import async_test
from tools.harness.nodes import in_thread

pytestmark = pytest.mark.real


@async_test
async def test_pages_of_any_origin_load_the_client() -> None:
    """A query is a version to caches; other methods than GET and HEAD are refused."""
    text = (files("cluster_pool") / "static" / "cluster-socket.js").read_text("utf-8")
    with RedisServer("valkey") as redis:
        async with node(redis) as (_, server):
            for query in ("", "?v=2"):
                asked = (
                    f" /cluster-socket.js{query} HTTP/1.1\r\nHost: x\r\nOrigin: http://b\r\n\r\n"
                )
                got = await in_thread(whole_answer, server.port, f"GET{asked}".encode())
                head, _, body = got.decode().partition("\r\n\r\n")
                assert head.startswith("HTTP/1.1 200 ")
                assert "\r\nContent-Type: text/javascript; charset=utf-8\r\n" in head
                assert "\r\nCache-Control: public, max-age=3600\r\n" in head
                assert "\r\nAccess-Control-Allow-Origin: *\r\n" in head
                assert body == text
                for method in ("POST", "PUT", "DELETE", "OPTIONS"):
                    got = await in_thread(whole_answer, server.port, f"{method}{asked}".encode())
                    assert got.partition(b"\r\n")[0].split()[1] == b"405"
