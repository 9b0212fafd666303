"""The books of a round begin empty, but for what the round before may have left behind."""

from tools.chaos.books import Books, Window
from tools.chaos.ledger import Ledger


def closed(ledger: Ledger) -> Books:
    return ledger.close([], [], 0, [])


def test_a_window_is_known_for_one_round_more() -> None:
    """Calls of the next round may still meet what a fault has left behind; messages do not."""
    ledger, window = Ledger(), Window(1.0, 2.0, None)
    ledger.told("a", "begun", ["send", 1, "red", "one", 1.0])
    ledger.told("a", "ended", [1, 1.5, "not_sent", "Redis is away"])
    ledger.broken(window)
    first, second, third = (closed(ledger) for _ in range(3))
    assert [str(call) for call in first.calls] == [
        "send 1 of a to red/one, not_sent (Redis is away)"
    ]
    assert not second.calls
    assert [list(books.windows) for books in (first, second, third)] == [[window], [window], []]
