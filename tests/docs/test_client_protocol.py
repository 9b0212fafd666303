"""The page for those who write clients: its program and its conversation are run."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect

from cluster_pool.core.client_requests import VERBS, read_request
from cluster_pool.server.client_calls import ANSWERS
from tests.docs.pages import ROOT, blocks
from tests.docs.test_python import run
from tests.servers import RedisServer
from tests.support import async_test
from tools.harness.nodes import NodeProcess

pytestmark = pytest.mark.real

PAGE = "docs/client-protocol.md"
RULE = ("--namespace-rule", "room:*=publish,info")


@pytest.fixture(scope="module")
def node() -> Iterator[NodeProcess]:
    """The server of the page."""
    with RedisServer("valkey") as redis, NodeProcess(redis.url, *RULE) as node:
        yield node


@async_test
async def test_the_client_on_the_page_runs(node: NodeProcess) -> None:
    chat = run("async def chat(url", page=PAGE)["chat"]
    assert await chat(node.url("lobby", "alice")) == "alice: Hello from Python"


@async_test
async def test_the_conversation_on_the_page_is_what_is_said(node: NodeProcess) -> None:
    """But for positions. A message may come before or behind the answer to its publishing."""
    (block,) = [block for block in blocks("text") if block.page == PAGE]
    v1: Any = "cluster-pool.v1"
    heard: list[str] = []
    said: list[str] = []
    async with connect(node.url("lobby", "alice"), subprotocols=[v1]) as socket:
        for line in block.text.splitlines():
            who, _, frame = line.partition(": ")
            if who == "client":
                assert sorted(heard) == sorted(said)
                await socket.send(frame)
            else:
                said.append(frame)
                text = str(await socket.recv())
                heard.append(re.sub(r'"p":"\d+\.\d+"', '"p":"POSITION"', text))
    assert sorted(heard) == sorted(said)


def test_requests_on_the_page_can_be_read() -> None:
    """Each verb but the one with a token stands there."""
    texts = [block.text for block in blocks("json") if block.page == PAGE]
    frames = [json.loads(line) for text in texts for line in text.splitlines()]
    requests = [frame for frame in frames if {*VERBS, "info"} & set(frame)]
    verbs = {read_request(json.dumps(one), 1024, 1024).verb for one in requests}
    assert verbs == {"join", "leave", "publish", "info"}


def test_every_error_is_on_the_page() -> None:
    page = (ROOT / PAGE).read_text()
    codes = {code for code, _ in ANSWERS.values()} | {"invalid", "rate", "too_large"}
    found = set(re.findall(r"^\| `(\w+)` \| .* \| .* \|$", page, re.MULTILINE))
    assert codes <= found
