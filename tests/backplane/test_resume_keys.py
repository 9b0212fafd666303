"""The key of the words of clients: one for a cluster, kept while it is in use."""

import asyncio

import pytest

from cluster_pool import BackplaneUnavailableError, History
from cluster_pool.backplane import resume_keys
from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.resume_keys import ResumeKeys
from cluster_pool.core.history import Position
from cluster_pool.core.resumes import ResumeSeals
from tests.clusters import Backend, Pool
from tests.support import async_test

START = Position("1", 2)


def keys_of(pool: Pool) -> ResumeKeys:
    setup = pool._setup
    return ResumeKeys(pool._parts.backplane.shard, setup.keys, setup.seals)


def word(seals: ResumeSeals) -> str:
    return seals.word(START, "n", "a", None)


@async_test
async def test_all_nodes_have_one_key(backend: Backend) -> None:
    """Also if they need it at the same moment; it has a ttl, and one from before counts on."""
    async with backend.pools(history={"room:*": History()}) as (one, two):
        seals = await asyncio.gather(*[keys_of(pool).read(deadline_in(5)) for pool in (one, two)])
        assert len({word(one) for one in seals}) == 1
        key = one._setup.keys.resumes
        assert 0 < backend.keys()[key] <= 1000 * resume_keys.TTL
        again = keys_of(one)
        assert again.known is None
        assert word(await again.read(deadline_in(5))) == word(seals[0])
        assert again.known is not None


@async_test
async def test_the_key_is_read_again_and_kept(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was lost is replaced by all."""
    monkeypatch.setattr(resume_keys, "KNOWN_FOR", 0.0)
    async with backend.pools(1) as (pool,):
        keys = keys_of(pool)
        before = word(await keys.read(deadline_in(5)))
        async with backend.client() as client:
            await client.expire(pool._setup.keys.resumes, 1000)
            assert word(await keys.read(deadline_in(5))) == before
            assert backend.keys()[pool._setup.keys.resumes] > 1_000_000
            await client.delete(pool._setup.keys.resumes)
            after = word(await keys.read(deadline_in(5)))
            assert after != before
            assert word(await keys_of(pool).read(deadline_in(5))) == after
            await client.set(pool._setup.keys.resumes, "short", ex=10)
            with pytest.raises(BackplaneUnavailableError):
                await keys.read(deadline_in(5))


@async_test
async def test_with_a_secret_nothing_is_in_redis(backend: Backend) -> None:
    """Former secrets count for reading."""
    async with backend.pools(1, secret="the former secret of ours") as (pool,):
        former = word(await keys_of(pool).read(deadline_in(5)))
    both = ["the present secret of ours", "the former secret of ours"]
    async with backend.pools(1, secret=both) as (pool,):
        seals = await keys_of(pool).read(deadline_in(5))
        assert word(seals) != former
        assert seals.start_in(former, "n", "a", None) == START
        assert not backend.keys_of("resumes")
