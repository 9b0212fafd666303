"""The numbers that a client has got tell what is missing, and what came twice or late."""

from tools.harness.movers import Numbers


def numbers(*texts: str) -> Numbers:
    """The numbers of a client that has heard these."""
    made = Numbers()
    for text in texts:
        made.hear(text)
    return made


def test_all_in_order() -> None:
    """Both kinds count by themselves."""
    one = numbers("1 b 1", "2 t 1", "4 b 2")
    assert (one.got, one.twice, one.late, one.lost(2, 1)) == (3, 0, 0, 0)
    assert one.lost(3, 2) == 2


def test_a_hole_is_lost_until_it_comes_late() -> None:
    """Then it is out of order."""
    one = numbers("1 b 1", "3 b 3")
    assert one.lost(3, 0) == 1
    one.hear("2 b 2")
    assert (one.lost(3, 0), one.late, one.twice) == (0, 1, 0)


def test_repeats_are_counted() -> None:
    """They are neither lost nor late."""
    one = numbers("1 b 1", "2 b 2", "1 b 1", "2 b 2", "3 b 3")
    assert (one.got, one.twice, one.late, one.lost(3, 0)) == (3, 2, 0, 0)
