"""FastAPI beside ``serve`` in scripts/bench, as small as it can be."""

from dataclasses import replace

import pytest

from tests.support import async_test
from tools.bench import servers
from tools.bench.__main__ import _parser, _settings

pytestmark = pytest.mark.real


@async_test
async def test_each_kind_of_server_delivers_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """With our protocol, under granian and aiohttp, without a pool and with compression taken up;
    then the latency and the storm of ``serve`` itself."""
    others = [kind for kind in servers.PLAIN if kind.server in (servers.OURS, "granian", "aiohttp")]
    chosen = (servers.PLAIN[0], *others, servers.OFFERED[-1])
    monkeypatch.setattr(servers, "KINDS", chosen)
    sizes = ("--idle", "20", "--rounds", "1", "--storm", "100")
    settings = _settings(_parser().parse_args(["--quick", *sizes]))
    rows = await servers.measure(replace(settings, connections=10), "asyncio", lambda text: None)
    assert [row.wrong for row in rows if row.wrong] == []
    assert "compression offered" in rows[4].what
    assert sum("a gather of send()" in row.what for row in rows) == 4
    assert sum("memory per idle connection" in row.what for row in rows) == 5
    assert any("until the client has it" in row.what for row in rows)
    assert any("each second of its CPU" in row.what for row in rows)
    # Twenty idle connections may fit into pages that the server has already.
    assert all(row.median > 0 for row in rows if "memory" not in row.what)
