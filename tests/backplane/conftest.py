"""Ledgers whose clock a test turns."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.backplane.budgets import ScriptedLedger
from tests.clusters import Backend
from tests.servers import RedisServer


@pytest.fixture
def scripted(backend: Backend) -> Iterator[ScriptedLedger]:
    """The script on each kind of server."""
    with asyncio.Runner() as runner, backend.sync_client() as client:
        yield ScriptedLedger(client, backend.prefix, runner)
        client.delete(*backend.keys())


@pytest.fixture
def own_ledger(own_server: RedisServer) -> Iterator[ScriptedLedger]:
    """The script on a server that may be flushed."""
    backend = Backend(own_server)
    with asyncio.Runner() as runner, backend.sync_client() as client:
        yield ScriptedLedger(client, backend.prefix, runner)
