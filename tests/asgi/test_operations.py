"""``pool.operations`` mounted in FastAPI, asked by HTTP on real servers."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus

from tests.asgi.servers import Server, running
from tests.asgi.test_departures import every_server
from tests.core.test_metrics import parsed
from tests.servers import BINARIES, RedisServer
from tests.support import async_test, eventually
from tools.harness.ports import HOST


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """One that may be killed."""
    with RedisServer(next(iter(BINARIES))) as server:
        yield server


async def ask(
    server: Server, path: str, method: str = "GET", token: str = "t0ken"
) -> tuple[int, str]:
    """Status and body of an answer."""
    request = urllib.request.Request(f"http://{HOST}:{server.port}/ops{path}", method=method)
    request.add_header("Authorization", f"Bearer {token}")

    def answer() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(answer)


@every_server
@async_test
async def test_operators_are_answered_by_every_server(name: str, redis: RedisServer) -> None:
    """With and without its token, by a GET and a HEAD; without Redis it is not ready."""
    async with running(name, redis.url) as server, server.connect("/room/alice"):
        assert await ask(server, "/healthz", token="") == (200, "ok\n")
        assert await ask(server, "/readyz", token="") == (200, "ready\n")
        assert await ask(server, "/readyz", "HEAD") == (200, "")
        assert (await ask(server, "/readyz", "POST"))[0] == 405
        assert (await ask(server, "/metrics", token="wrong"))[0] == 401
        assert (await ask(server, "/elsewhere"))[0] == 404
        status, text = await ask(server, "/metrics")
        assert status == 200
        assert parsed(text)["cluster_pool_connections"] == {"": 1}
        status, text = await ask(server, "/status")
        assert json.loads(text)["connections"] == 1
        with pytest.raises(InvalidStatus) as refused:
            await server.connect("/ops/healthz").__aenter__()
        assert refused.value.response.status_code == 403
        redis.kill()

        async def unready() -> bool:
            status, text = await ask(server, "/readyz")
            return status == 503 and text.startswith("not ready: active: ") and "/" not in text

        await eventually(unready, 20)
        assert (await ask(server, "/healthz"))[0] == 200
