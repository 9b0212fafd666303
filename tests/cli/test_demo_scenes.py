"""The rows of the demo: right only if every client heard its text exactly once."""

from cluster_pool.cli.demo_cluster import Client, NodeProcess
from cluster_pool.cli.demo_scenes import BAR, heard_row, lease_left

NO_NODE: NodeProcess = None  # type: ignore[assignment]  # nobody connects


def clients(*heard: list[float]) -> list[Client]:
    """Clients that heard "hi" at these times."""
    return [
        Client(f"c{at}", NO_NODE, {"hi": times} if times else {}) for at, times in enumerate(heard)
    ]


def test_row_is_right_when_each_client_heard_its_text_once() -> None:
    """Delays are in milliseconds."""
    row = heard_row("scene", clients([1.010], [1.030]), ["hi", "hi"], [1.0, 1.0], "all heard")
    assert (row.sent, row.delivered, row.lost, row.right) == (2, 2, 0, True)
    assert (round(row.median_ms or 0), round(row.longest_ms or 0)) == (20, 30)
    assert row.remark == "all heard"


def test_row_is_wrong_when_a_text_was_lost_or_came_twice() -> None:
    """The remark names the second case."""
    lost = heard_row("scene", clients([1.0], []), ["hi", "hi"], [1.0, 1.0], "all heard")
    assert (lost.delivered, lost.lost, lost.right) == (1, 1, False)
    twice = heard_row("scene", clients([1.0, 2.0]), ["hi"], [1.0], "all heard")
    assert (twice.lost, twice.right, twice.remark) == (0, False, "1 heard it twice")
    none = heard_row("scene", clients([]), ["hi"], [1.0], "")
    assert (none.median_ms, none.longest_ms) == (None, None)


def test_bar_of_a_lease_fills_until_its_end() -> None:
    """It stays full while ghosts are still counted."""
    assert lease_left(0, 9, 6) == f"[{'-' * BAR}]  0.0 of 10 s: 9 members, 6 are there"
    assert lease_left(5, 9, 6).startswith(f"[{'#' * (BAR // 2)}{'-' * (BAR // 2)}]")
    assert lease_left(12, 9, 6).startswith(f"[{'#' * BAR}] 12.0")
