"""FastAPI beside ``serve`` in scripts/bench, as small as it can be."""

from dataclasses import replace

import pytest

from tests.support import async_test
from tools.bench import servers
from tools.bench.__main__ import _parser, _settings

pytestmark = pytest.mark.real


@async_test
async def test_each_kind_of_server_delivers_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """With our protocol, without a pool, and with compression that is taken up."""
    chosen = (servers.PLAIN[0], servers.PLAIN[1], servers.OFFERED[-1])
    monkeypatch.setattr(servers, "KINDS", chosen)
    settings = _settings(_parser().parse_args(["--quick", "--idle", "20", "--rounds", "1"]))
    rows = await servers.measure(replace(settings, connections=10), "asyncio", lambda text: None)
    assert [row.wrong for row in rows] == [""] * 11
    assert "compression offered" in rows[2].what
    assert all(row.median > 0 for row in rows)
