"""Runs ``async def`` tests, as pytest-asyncio or anyio would, so that the tutorial needs no plugin.

Your own tests use one of these, or the fixture ``run_cluster`` (see ``test_7_your_own_test.py``).
"""

import asyncio
import inspect

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test of this folder in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    asyncio.run(pyfuncitem.obj())
    return True
