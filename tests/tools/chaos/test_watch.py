"""The watch on every call of scripts/chaos, on a clock of the test's own."""

import asyncio

import pytest

from tests.support import async_test, eventually
from tools.chaos import rest, sparse, watch


class Told:
    """A watch, what it told, and the clock that it goes by."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[tuple[str, float]] = []
        clock = watch.RunningClock(lambda: self.now)
        self.watch = watch.Watch(lambda about, seconds: self.told.append((about, seconds)), clock)

    def run(self, seconds: float) -> None:
        """The process runs for so long, and looks as often as it should."""
        for _ in range(round(seconds / watch.LOOK)):
            self.now += watch.LOOK
            self.watch.look()

    def stop(self, seconds: float) -> None:
        """The process is stopped for so long."""
        self.now += seconds
        self.watch.look()


def test_an_unanswered_call_is_told_once() -> None:
    """A second after its deadline, with how long it took until then."""
    told = Told()
    told.watch.begin("a", 2.0)
    told.run(2.9)
    assert told.told == []
    told.run(0.3)
    assert [about for about, _ in told.told] == ["a"]
    assert 2.9 < told.told[0][1] < 3.2
    told.run(10)
    assert len(told.told) == 1
    assert told.watch.open == 0
    assert told.watch.watched == 1


def test_an_answered_call_is_not_told() -> None:
    """However late its end is noted, as long as nobody looked before."""
    told = Told()
    call = told.watch.begin("a", 2.0)
    told.run(2.9)
    told.watch.end(call)
    told.run(10)
    assert told.told == []


def test_a_stopped_process_does_not_judge() -> None:
    """Calls that were open when it was stopped get time to end after it runs again."""
    told = Told()
    call = told.watch.begin("a", 2.0)
    told.run(1.0)
    told.stop(60.0)
    told.run(1.0)
    assert told.told == []
    told.run(1.0)
    assert [about for about, _ in told.told] == ["a"]
    told.watch.end(call)


@async_test
async def test_an_overdue_call_is_cancelled() -> None:
    """So that what waits for it goes on."""
    told = Told()

    async def never() -> None:
        told.watch.begin("a", 2.0)
        await asyncio.Event().wait()

    task = asyncio.create_task(never())
    await asyncio.sleep(0)
    told.run(4.0)
    await eventually(task.cancelled)


def test_quiet_namespaces() -> None:
    """Each has one or two members, is left alone a fifth of the time, and is found asleep then."""
    names = sparse.names(30)
    assert {len(sparse.ids(name)) for name in names} == {1, 2}
    assert any(sparse.is_steady(name) for name in names)
    for name in names:
        asleep = [sparse.asleep(name, float(at)) for at in range(int(sparse.CYCLE))]
        assert sum(asleep) == pytest.approx(sparse.SLEEP, abs=1)
        for now in (3.0, 80.0, 1000.0):
            begin = sparse.next_sleep(name, now)
            assert begin > now - sparse.SLEEP
            assert sparse.asleep(name, begin + 1)
            assert not any(sparse.asleep(name, at) for at in range(int(now), int(begin)))
    assert not sparse.is_sparse("red")


def test_everybody_speaks_to_the_same_few_namespaces() -> None:
    """For ten seconds; then to others."""
    names = sparse.names(80)
    assert sparse.focus(names, 1000.0) == sparse.focus(names, 1009.0) != sparse.focus(names, 1010.0)
    assert len(sparse.focus(names, 0.0)) == 10


def test_a_program_without_pending_calls_is_at_rest() -> None:
    """No call is pending, and no task runs that did not run at first."""
    at_rest = rest.Rest()

    def figures(tasks: int, pending: int = 0) -> dict[str, dict[str, object]]:
        return {"a": {"pending": pending, "tasks": tasks, "running": {"beat": tasks}}}

    assert at_rest.failures(figures(5)) == []
    assert at_rest.failures(figures(5 + rest.SLACK)) == []
    assert at_rest.failures(figures(5, pending=2)) == ["a is quiet and has 2 pending"]
    at_rest.said(["a is quiet and has 2 pending"])
    assert at_rest.failures(figures(5, pending=2)) == []
    assert at_rest.failures(figures(5, pending=3)) == ["a is quiet and has 3 pending"]
    (failure,) = at_rest.failures(figures(20))
    assert "runs 20 tasks" in failure
    assert "{'beat': 15}" in failure
