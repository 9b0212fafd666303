"""Drain budgets whose clock a test turns."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.backplane.budgets import ScriptedBudget
from tests.clusters import Backend
from tests.servers import RedisServer


@pytest.fixture
def scripted(backend: Backend) -> Iterator[ScriptedBudget]:
    """The script on each kind of server."""
    with asyncio.Runner() as runner, backend.sync_client() as client:
        yield ScriptedBudget(client, backend.prefix, runner)
        client.delete(*backend.keys())


@pytest.fixture
def own_budget(own_server: RedisServer) -> Iterator[ScriptedBudget]:
    """The script on a server that may be flushed."""
    backend = Backend(own_server)
    with asyncio.Runner() as runner, backend.sync_client() as client:
        yield ScriptedBudget(client, backend.prefix, runner)
