"""The identity of a start: made when it starts, and different from every other."""

import pytest

from cluster_pool.core.identity import Identity, varied
from cluster_pool.core.ids import MAX_BYTES, check_node_id
from cluster_pool.core.keys import Keys

KEYS = Keys()


def test_each_start_has_an_identity_of_its_own() -> None:
    """A made-up node id and the name of the start are new; a given id stays."""
    one, two = Identity(KEYS), Identity(KEYS)
    assert one.node_id != two.node_id
    assert one.start != two.start
    again = Identity(KEYS, "pod-0")
    assert (again.node_id, again.own_channel) == ("pod-0", KEYS.node_channel("pod-0"))


@pytest.mark.parametrize("given", [None, "pod-0"])
def test_a_node_that_lost_its_id_takes_another(given: str | None) -> None:
    """With the channel of the new id, and under the same start."""
    one = Identity(KEYS, given)
    before, start = one.node_id, one.start
    one.change()
    assert one.node_id != before
    assert one.node_id.startswith(given or "")
    assert one.own_channel == KEYS.node_channel(one.node_id)
    assert one.start == start
    one.change()
    assert one.node_id.count("-") == before.count("-") + (given is not None)


@pytest.mark.parametrize("given", ["x" * MAX_BYTES, "é" * (MAX_BYTES // 2), "a" + "字" * 85, "a"])
def test_a_varied_node_id_is_as_long_as_may_be(given: str) -> None:
    """The given one is cut between characters."""
    assert check_node_id(varied(given)).startswith(given[:80])
    assert len(varied(given).encode()) in range(min(len(given) + 9, MAX_BYTES - 3), MAX_BYTES + 1)
    assert varied(given) != varied(given)
