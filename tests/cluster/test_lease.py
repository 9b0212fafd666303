"""The lease, as the parts of its node read it."""

import asyncio

import pytest

from cluster_pool import Timing
from cluster_pool.cluster import lease as lease_module
from cluster_pool.cluster.lease import LeaseState
from tests.support import async_test


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The current time; a test changes it."""
    now = [1000.0]
    monkeypatch.setattr(lease_module, "boottime", lambda: now[0])
    return now


def test_a_lease_tells_its_age_while_there_is_one(clock: list[float]) -> None:
    """From the last renewal, also when it is over; nothing before the first and after the end."""
    lease = LeaseState(Timing(lease=10))
    assert lease.ages() == {"lease_age": None, "lease_left": None}
    lease.begin("start.0", clock[0], 1)
    clock[0] += 4
    assert lease.ages() == {"lease_age": 4, "lease_left": 5}
    clock[0] += 8
    assert lease.ages() == {"lease_age": 12, "lease_left": 0}
    lease.end()
    assert lease.ages() == {"lease_age": None, "lease_left": None}


def test_a_lease_ends_by_its_own_clock_a_second_before_redis_ends_it(clock: list[float]) -> None:
    """The second is for what the two clocks and the way between them do not know."""
    lease = LeaseState(Timing(lease=10))
    assert not lease.held
    lease.begin("start.0", clock[0], 1)
    assert lease.held
    assert lease.seconds_left() == 9
    clock[0] += 9
    assert not lease.held
    assert lease.seconds_left() == 0


def test_a_lease_that_ended_is_broken_until_everything_is_registered_again(
    clock: list[float],
) -> None:
    """A renewal alone does not tell what other nodes have claimed meanwhile."""
    lease = LeaseState(Timing(lease=10))
    lease.begin("start.0", clock[0], 1)
    lease.settle()
    assert lease.unbroken
    clock[0] += 20
    assert not lease.unbroken
    lease.begin("start.1", clock[0], 1)
    assert lease.held
    assert not lease.unbroken
    lease.settle()
    assert lease.unbroken


def test_a_node_is_alone_from_the_first_of_the_heartbeats_that_say_so(clock: list[float]) -> None:
    """Any heartbeat that counts another node ends it."""
    lease = LeaseState(Timing(lease=10))
    assert lease.alone_for() == 0
    lease.begin("start.0", clock[0], 1)
    clock[0] += 3
    lease.renew(clock[0], 1)
    assert lease.alone_for() == 3
    lease.renew(clock[0], 2)
    assert lease.alone_for() == 0


def test_a_node_judges_others_once_it_has_held_its_lease_for_a_whole_ttl(
    clock: list[float],
) -> None:
    """A rejoin begins that time anew: Redis may have lost the leases of all."""
    lease = LeaseState(Timing(lease=10))
    lease.begin("start.0", clock[0], 1)
    clock[0] += 9.9
    lease.renew(clock[0], 1)
    assert not lease.may_judge()
    clock[0] += 0.1
    assert lease.may_judge()
    lease.begin("start.1", clock[0], 1)
    assert not lease.may_judge()


@async_test
async def test_a_caller_that_waits_has_the_keeper_look_at_once_unless_it_fails(
    clock: list[float],
) -> None:
    """While Redis refuses heartbeats, callers do not make them come faster."""
    lease = LeaseState(Timing(lease=10))
    lease.failing = True
    waiting = asyncio.create_task(lease.wait_held())
    await asyncio.sleep(0)
    assert not lease.needed.is_set()
    lease.failing = False
    another = asyncio.create_task(lease.wait_held())
    await asyncio.sleep(0)
    assert lease.needed.is_set()
    lease.begin("start.0", clock[0], 1)
    lease.settle()
    await asyncio.gather(waiting, another)
