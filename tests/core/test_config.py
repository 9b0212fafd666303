"""Limits and times are checked when they are made."""

import pytest

from cluster_pool import InvalidValueError, Limits, Timing
from cluster_pool.core.config import check_above_zero, check_on_user_limit


def test_limits_and_times_are_checked() -> None:
    """Zero, less, infinity and other types are refused, and a heartbeat that is too slow."""
    for bad in (0, -1, 1.5, "1", None, True):
        with pytest.raises(InvalidValueError):
            Limits(outbox_bytes=bad)  # type: ignore[arg-type]
    for bad in (0, -1, float("inf"), float("nan"), "1"):
        with pytest.raises(InvalidValueError):
            Timing(timeout=bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="a third of the lease"):
        Timing(lease=3, heartbeat=1.1)


def test_a_namespace_has_room_by_its_kind() -> None:
    """A user may have any number of connections unless a limit is set."""
    limits = Limits(namespace_members=5)
    assert limits.room_in("room") == ("namespace_members", 5)
    assert limits.room_in("~user:42")[1] > 10**15
    assert Limits(user_connections=3).room_in("~user:42") == ("user_connections", 3)
    for bad in (0, -1, 1.5, "1", True):
        with pytest.raises(InvalidValueError):
            Limits(user_connections=bad)  # type: ignore[arg-type]
    assert (check_on_user_limit("oldest"), check_on_user_limit("reject")) == (True, False)
    with pytest.raises(InvalidValueError, match="on_user_limit must be"):
        check_on_user_limit("newest")


@pytest.mark.parametrize("huge", [10**400, 1e305, 1.1e8])
def test_no_time_is_longer_than_a_loop_can_count(huge: float) -> None:
    """It would be refused by the loop, or by Redis, long after the node has started."""
    for name in ("timeout", "lease", "close", "linger", "probe", "handler"):
        with pytest.raises(InvalidValueError, match=f"{name} must be .* 1e\\+08 at most"):
            Timing(**{name: huge})
    assert Timing(timeout=1e8).timeout == 1e8


def test_a_number_that_no_float_can_hold_is_refused() -> None:
    """It is refused at once, like a number that is not above 0."""
    assert check_above_zero("rate", 10**300) == 1e300
    with pytest.raises(InvalidValueError):
        check_above_zero("rate", 10**400)
