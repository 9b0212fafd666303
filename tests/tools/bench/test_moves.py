"""The figures of the bench of moves, from numbers that clients have checked."""

from collections import Counter

from tools.bench.moves import Trial, room_of, rows


def test_a_lost_message_is_a_fault() -> None:
    """Repeats are not: a killed node cannot know what its clients had."""
    report = {
        "got": 10,
        "lost": 1,
        "twice": 2,
        "most_twice": 2,
        "late": 0,
        "codes": {"1012": 3},
        "handshakes": [0.01] * 99 + [1.0],
    }
    made = {row.what: row for row in rows("restart", Trial(report, Counter(broadcast=4)))}
    assert made["restart: messages lost"].wrong == "1 messages lost"
    assert made["restart: messages lost"].note == (
        "of 10 received; sent: 4 broadcast; closed: 3 × 1012"
    )
    assert [row.wrong for row in made.values()][1:] == ["", "", ""]
    assert made["restart: messages twice"].samples == [2.0]
    assert made["restart: handshake of those that come back, p99"].samples[0] > 10


def test_rooms_have_fifty_clients() -> None:
    """The first fifty are in the first one."""
    assert [room_of(at) for at in (0, 49, 50)] == ["room-0", "room-0", "room-1"]
