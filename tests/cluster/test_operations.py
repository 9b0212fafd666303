"""The application for operators: asked by ASGI itself, and mounted in frameworks."""

import json
import warnings
from typing import Any

import pytest
from fastapi import FastAPI

from cluster_pool import ClusterPool, InvalidValueError
from cluster_pool.cluster.operations import Operations, path_of
from cluster_pool.server.settings import NodeSettings
from cluster_pool.testing import FAST
from tests.clusters import Backend
from tests.core.test_metrics import parsed
from tests.support import async_test

TOKEN = "t0ken"
BEARER = ("Authorization", f"Bearer {TOKEN}")


def made() -> ClusterPool:
    """A pool that is not started."""
    return ClusterPool(Backend(None).redis(), node_id="a", timing=FAST)


async def ask(
    app: Operations, path: str, *headers: tuple[str, str], method: str = "GET", **scope: Any
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer."""
    told: list[Any] = []

    async def send(event: Any) -> None:
        told.append(event)

    async def receive() -> Any:
        pytest.fail("nothing of a request is read")

    lines = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "method": method, "path": path, "headers": lines, **scope}
    await app(scope, receive, send)
    start, body = told
    assert (start["type"], body["type"]) == ("http.response.start", "http.response.body")
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], found, body["body"]


@async_test
async def test_health_and_readiness_are_for_everybody() -> None:
    """Readiness follows the pool; the process is healthy in any case."""
    pool = made()
    app = pool.operations()
    for _ in range(2):
        assert (await ask(app, "/healthz"))[::2] == (200, b"ok\n")
        status, headers, body = await ask(app, "/readyz")
        assert (status, body) == (503, b"not ready: stopped\n")
        assert headers["retry-after"] == "1"
        async with pool:
            assert (await ask(app, "/readyz"))[::2] == (200, b"ready\n")


@pytest.mark.parametrize("token", [None, ""])
@async_test
async def test_without_a_token_the_statistics_are_not_there(token: str | None) -> None:
    """No request gets them, and an empty variable of the environment opens nothing."""
    app = made().operations(token)
    for path in ("/metrics", "/status"):
        for header in (("Authorization", "Bearer "), ("Authorization", "Bearer x"), BEARER):
            status, _, body = await ask(app, path, header)
            assert (status, body) == (404, b"not here: /healthz, /readyz\n")


@pytest.mark.parametrize("token", ["t0ken\n", " t0ken", "a b", "\xe9", "\ud800", b"t0ken", 5])
def test_a_token_that_no_header_could_bear_is_refused_at_once(token: Any) -> None:
    """A file's line end would keep every operator out, and another type answer with errors."""
    with pytest.raises(InvalidValueError):
        made().operations(token)
    with pytest.raises(InvalidValueError):
        NodeSettings(admin_port=0, admin_token=token)


@async_test
async def test_with_a_token_the_statistics_are_for_its_bearers() -> None:
    """As Prometheus and as a person read them."""
    async with made() as pool:
        app = pool.operations(token=TOKEN)
        _, headers, body = await ask(app, "/metrics", BEARER)
        assert parsed(body.decode())["cluster_pool_ready"] == {"": 1}
        assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        _, headers, body = await ask(app, "/status", BEARER)
        assert json.loads(body)["node"] == "a"
        assert headers["content-type"] == "application/json"
        assert TOKEN.encode() not in body
        for wrong in ("Bearer t0ke", "Bearer t0ken2", "Basic t0ken", "t0ken", "Bearer \xff", ""):
            for path in ("/metrics", "/status"):
                status, headers, body = await ask(app, path, ("Authorization", wrong))
                assert (status, body) == (401, b"a token is wanted\n")
                assert headers["www-authenticate"] == "Bearer"
        assert (await ask(app, "/metrics"))[0] == 401
        assert (await ask(app, "/metrics", BEARER, BEARER))[0] == 401
        assert (await ask(app, "/healthz"))[0] == 200


@async_test
async def test_other_paths_and_methods_are_not_here() -> None:
    """A HEAD is a GET without its body."""
    app = made().operations(TOKEN)
    for path in ("/", "", "/healthz/", "/Healthz", "/healthz/x", "//healthz", "/ops/healthz"):
        status, _, body = await ask(app, path)
        assert (status, body) == (404, b"not here: /healthz, /readyz, /metrics, /status\n")
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "get"):
        for path in ("/healthz", "/status"):
            status, headers, _ = await ask(app, path, method=method)
            assert (status, headers["allow"]) == (405, "GET, HEAD")
    for path in ("/healthz", "/readyz", "/metrics", "/status", "/elsewhere"):
        *got, body = await ask(app, path, BEARER)
        *headed, nothing = await ask(app, path, BEARER, method="HEAD")
        assert nothing == b""
        assert got[0] == headed[0]
        assert int(headed[1]["content-length"]) > 0
        assert int(got[1]["content-length"]) == len(body)


@pytest.mark.parametrize(
    ("path", "root_path", "of_app", "below"),
    [
        ("/healthz", "", "", "/healthz"),
        ("/ops/healthz", "/ops", "", "/healthz"),
        ("/ops/healthz", "/ops/", "", "/healthz"),
        ("/api/ops/healthz", "/api/ops", "/api", "/healthz"),
        ("/ops/healthz", "/api/ops", "/api", "/healthz"),
        ("/healthz", "/api", "/api", "/healthz"),
        ("/healthz", "/ops", "", "/healthz"),
        ("/opshealthz", "/ops", "", "/opshealthz"),
        ("/ops", "/ops", "", "/ops"),
        ("/ops/ops/healthz", "/ops", "", "/ops/healthz"),
    ],
)
def test_the_path_below_the_mount_counts(
    path: str, root_path: str, of_app: str, below: str
) -> None:
    """Whether a framework or a proxy has removed the root path or not."""
    scope = {"path": path, "root_path": root_path, "app_root_path": of_app}
    assert path_of(scope) == below


@async_test
async def test_a_websocket_is_refused_and_other_scopes_are_not_known() -> None:
    """A server that is given this application alone finds that it has no lifespan."""
    told: list[Any] = []

    async def send(event: Any) -> None:
        told.append(event)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    app = made().operations(TOKEN)
    await app({"type": "websocket", "path": "/healthz", "headers": []}, receive, send)
    assert told == [{"type": "websocket.close"}]
    with pytest.raises(NotImplementedError, match="lifespan"):
        await app({"type": "lifespan"}, receive, send)


def test_it_is_mounted_in_fastapi() -> None:
    """Below a path, below a mounted application, and at the root behind all routes."""
    pytest.importorskip("httpx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the next HTTP client that it will use
        from fastapi.testclient import TestClient

    pool = made()
    app, part = FastAPI(lifespan=pool.lifespan), FastAPI()
    part.mount("/ops", pool.operations(TOKEN))
    app.mount("/part", part)
    app.mount("/ops", pool.operations(TOKEN))
    app.mount("/", pool.operations())
    with TestClient(app) as client:
        for prefix in ("/part/ops", "/ops", ""):
            assert client.get(f"{prefix}/readyz").text == "ready\n"
            assert client.get(f"{prefix}/status").status_code == (401 if prefix else 404)
        assert client.get("/part/ops/status", headers=dict([BEARER])).json()["node"] == "a"
        assert client.post("/ops/readyz").status_code == 405
        assert client.get("/docs").status_code == 200
    with TestClient(app, root_path="/api") as client:
        for prefix in ("/api/part/ops", "/api/ops", "/ops", "/api", ""):
            assert client.get(f"{prefix}/readyz").text == "ready\n"
