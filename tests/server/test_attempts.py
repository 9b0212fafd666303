"""Attempts while Redis cannot be reached."""

import asyncio

import pytest

from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.server import attempts
from cluster_pool.server.attempts import Attempts
from tests.support import async_test


def fail(tried: Attempts, server: str) -> None:
    """Try a server in vain."""
    with pytest.raises(BackplaneUnavailableError), tried.begin(server):
        raise BackplaneUnavailableError("gone")


@async_test
async def test_a_failure_makes_others_wait_and_concerns_its_server_alone() -> None:
    tried = Attempts()
    assert tried.allowed("a")
    fail(tried, "a")
    assert not tried.allowed("a")
    assert tried.allowed("b")


@async_test
async def test_one_task_at_a_time_tries_again_and_success_frees_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "PAUSE", 0.0)
    tried = Attempts()
    fail(tried, "a")
    assert tried.allowed("a")
    with tried.begin("a"):
        assert not tried.allowed("a")
    assert tried.allowed("a")
    with tried.begin("a"):
        assert tried.allowed("a")


@async_test
async def test_a_cancelled_attempt_says_nothing_and_blocks_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "PAUSE", 0.0)
    tried = Attempts()
    fail(tried, "a")
    with pytest.raises(asyncio.CancelledError), tried.begin("a"):
        raise asyncio.CancelledError
    assert tried.allowed("a")
