"""The numbers that a client has got tell what is missing, and what came twice or late."""

from tests.support import async_test
from tools.harness.movers import Movers, Numbers


def numbers(*texts: str) -> Numbers:
    """The numbers of a client that has heard these."""
    made = Numbers()
    for text in texts:
        made.hear(text)
    return made


def test_all_in_order() -> None:
    """Both kinds count by themselves."""
    one = numbers("1 b 1", "2 t 1", "4 b 2")
    assert (one.got, one.twice, one.late, one.lost(2, 1)) == (3, 0, 0, set())
    assert one.lost(3, 2) == {("b", 3), ("t", 2)}


def test_a_hole_is_lost_until_it_comes_late() -> None:
    """Then it is out of order."""
    one = numbers("1 b 1", "3 b 3")
    assert one.lost(3, 0) == {("b", 2)}
    one.hear("2 b 2")
    assert (one.lost(3, 0), one.late, one.twice) == (set(), 1, 0)


def test_repeats_are_counted() -> None:
    """They are neither lost nor late."""
    one = numbers("1 b 1", "2 b 2", "1 b 1", "2 b 2", "3 b 3")
    assert (one.got, one.twice, one.late, one.lost(3, 0)) == (3, 2, 0, set())


def test_losses_before_the_word_are_told() -> None:
    """Also what was sent before the next message of its kind; what is lost later is not."""
    one = numbers("1 b 1", "3 b 3")
    assert one.untold(one.lost(3, 0)) == {("b", 2)}
    one.told()
    assert one.untold(one.lost(4, 1)) == set()
    one.hear("6 b 6")
    one.hear("8 b 8")
    assert one.lost(9, 1) == {("b", 2), ("b", 4), ("b", 5), ("b", 7), ("b", 9), ("t", 1)}
    assert one.untold(one.lost(9, 1)) == {("b", 7), ("b", 9)}
    one.hear("9 t 1")
    assert one.untold(one.lost(8, 2)) == {("b", 7), ("t", 2)}


@async_test
async def test_movers_add_up_what_is_lost() -> None:
    """A message that may not come, as its sender knows, is none of these."""
    movers = Movers()
    members = [("room", "a"), ("room", "b")]
    movers._numbers = {member: Numbers() for member in members}
    movers._hear(members[0], "1 b 1")
    movers._hear(members[0], "~ gap")
    movers._hear(members[1], "2 t 1")
    found = await movers.numbers({"room": 2}, {"b": 2}, [("t", "b", 2)])
    assert (found["lost"], found["untold"], found["doubtful"]) == (3, 2, 1)
    assert movers.words == {"gap": 1}
