"""The checks of a pool's or publisher's setup, and the events of one start's backplane."""

import pytest

from cluster_pool import Gap, InvalidValueError, Limits, Timing
from cluster_pool.backplane.backplane import Backplane, Setup
from tests.clusters import Backend
from tests.support import async_test


class Observer:
    """Keeps the events that it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def up(self) -> None:
        self.told.append("up")

    def down(self) -> None:
        self.told.append("down")

    def part_up(self, shard: object) -> None:
        self.told.append("part up")

    def part_down(self, shard: object) -> None:
        self.told.append("part down")

    def moved(self, slots: object) -> None:
        self.told.append("moved")

    def gap(self, gap: Gap) -> None:
        self.told.append(gap)


def setup(redis: object, **given: object) -> Setup:
    """A setup with the fields that matter to a test."""
    options = {"prefix": "p", "limits": None, "timing": Timing(), "secret": None, **given}
    return Setup.of(redis, **options)  # type: ignore[arg-type]


def test_an_invalid_setup_is_refused_before_any_start() -> None:
    """An invalid address, a short secret, a default prefix in another database."""
    for redis, given in (
        (17, {}),
        ("redis://localhost", {"secret": "short"}),
        ("redis://localhost/3", {"prefix": "cluster_pool"}),
        ("redis://localhost", {"prefix": "{p}"}),
    ):
        with pytest.raises(InvalidValueError):
            setup(redis, **given)
    assert setup("redis://localhost").limits == Limits()


@async_test
async def test_each_start_has_an_identity_of_its_own() -> None:
    """A backplane reports up and down, and a stop fails the queued calls."""
    shared, observer = setup(Backend(None).redis(), node_id="node-1"), Observer()
    one, two = (Backplane(shared, observer, holds=False) for _ in range(2))
    assert one.identity.start != two.identity.start
    assert one.identity.node_id == two.identity.node_id == "node-1"
    await one.start(None)
    assert await one.outbound.broadcast("n", b"x", one.deadline(None)) == 0
    await one.stop()
    assert observer.told == ["up", "down"]
