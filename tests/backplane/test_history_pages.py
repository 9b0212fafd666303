"""Pages of histories, as scripts give them."""

from cluster_pool.backplane.history_pages import page_in
from cluster_pool.core.envelope import ENVELOPE
from cluster_pool.core.history import History, Position


def test_a_page_says_where_the_next_one_begins() -> None:
    """Entries of others and of other epochs are left out; without a history there is nothing."""
    entry = [b"12-0", [b"t", b"1500", b"e", ENVELOPE + b"9 70 2 start 1 12\n"]]
    former = [b"11-0", [b"t", b"1500", b"e", ENVELOPE + b"8 70 2 start 1 11\n"]]
    bounds = b"5 2000 7"
    page = page_in([b"9", b"12", b"70", bounds, 1600, [former, entry, [b"13-0", [b"a", b"b"]]], 1])
    assert page.position == Position("9", 12)
    assert page.history == History(messages=5, seconds=2, bytes=7)
    assert [one.header.position for one in page.entries] == [12]
    assert (page.more, page.number) == ("(13-0", 70)
    assert page.is_held(page.entries[0], 12)
    assert not page.is_held(page.entries[0], 7)
    assert page_in([b"9", b"12", b"70", bounds, 1600, [entry], 0]).more is None
    assert page_in([b"", b"", b"", b"", 1600, [], 0]).position == Position("", 0)
