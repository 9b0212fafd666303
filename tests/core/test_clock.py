"""The time of Redis, estimated from its replies."""

from cluster_pool.core.clock import RedisClock


def test_the_time_of_redis_is_between_two_estimates() -> None:
    """It is counted from the arrival of a reply, and from the question."""
    clock = RedisClock()
    clock.hear(1_000_000, 49.9, 50.0)
    assert clock.at(50.5) == 1_500_000
    assert clock.at(49.0) == 0
    assert 1_600_000 < clock.not_before(50.5) < 1_601_000


def test_a_late_reply_about_the_time_does_not_worsen_the_estimate() -> None:
    """The better estimate stays while replies agree with it; a clock that was set is believed."""
    clock = RedisClock()
    clock.hear(1_000_000_000, 49.9, 50.0)
    clock.hear(1_001_000_000, 51.0, 53.0)
    assert 1_002_990_000 < clock.at(53.0) <= 1_003_000_000
    assert clock.not_before(53.0) >= 1_003_000_000
    clock.hear(1_004_000_000, 54.0, 54.0)
    assert clock.at(54.0) == 1_004_000_000
    for moment, said in ((55.0, 900_000_000), (56.0, 2_000_000_000)):
        clock.hear(said, moment - 0.5, moment)
        assert clock.at(moment) == said
