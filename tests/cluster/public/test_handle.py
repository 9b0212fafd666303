"""The public calls as users see them: told in full, awaited as ever, refused when not running."""

import inspect
import pydoc

import pytest

from cluster_pool import ClusterPool, PoolClosedError, Publisher, WrongLoopError
from tests.clusters import Backend
from tests.support import async_test


@pytest.mark.parametrize("kind", [ClusterPool, Publisher])
def test_every_public_name_is_documented_where_it_is_used(kind: type) -> None:
    """Also what both have alike, with its own signature and not a general one."""
    for name in dir(kind):
        if name.startswith("_"):
            continue
        member = getattr(kind, name)
        assert inspect.getdoc(member), name
        if callable(member):
            kinds = {one.kind for one in inspect.signature(member).parameters.values()}
            assert not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    text = pydoc.plain(pydoc.render_doc(kind.send))  # type: ignore[attr-defined]
    assert "confirm: Union[bool, Literal['client']] = False" in text
    assert "BackplaneUnavailableError: not sent" in text


def test_calls_that_are_awaited_are_coroutine_functions() -> None:
    """So that a program may make tasks of them; ``send_nowait`` gives a future."""
    plain = {"send_nowait", "accept", "members", "watch", "watching", "drain_on_signal", "presence"}
    plain |= {"on", "get_connection", "has_namespace", "statistics", "headroom", "free"}
    plain |= {"metrics", "was_alone", "hurry_drain", "lifespan", "operations", "watch_users"}
    plain |= {"resume_word"}
    for name in dir(ClusterPool):
        member = getattr(ClusterPool, name)
        if not name.startswith("_") and callable(member):
            assert inspect.iscoroutinefunction(member) is (name not in plain), name


@async_test
async def test_a_pool_that_does_not_run_says_so_in_any_loop() -> None:
    """Running, it says that the loop is another one."""
    pool = ClusterPool(Backend(None).redis())
    with pytest.raises(PoolClosedError):
        pool.send_nowait("n", "a", "x")
    async with pool:
        loop, pool._parts.loop = pool._parts.loop, None  # type: ignore
        with pytest.raises(WrongLoopError):
            pool.send_nowait("n", "a", "x")
        pool._parts.loop = loop  # type: ignore
    with pytest.raises(PoolClosedError):
        pool.send_nowait("n", "a", "x")
