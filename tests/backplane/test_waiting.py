"""A channel that waits for its past: its place, and what is held."""

import pytest

from cluster_pool.backplane.inbox import Heard
from cluster_pool.backplane.waiting import Held, Place, Waiting, start_of, targets_in
from cluster_pool.core.envelope import BrokenEnvelopeError, pack
from cluster_pool.core.numbers import NO_COUNTER, Counter
from cluster_pool.core.seals import ROUTED

CHANNEL = "cluster_pool:{room:7}"
OWN = "cluster_pool:start:s"


def published(number: int, position: int, epoch: str = "1", messages: int = 1) -> Held:
    """A broadcast that is held."""
    return Held.of(Heard(CHANNEL, number, b"x", 1, "sender", epoch, messages, position))


def targeted(position: int, epoch: str = "1") -> Held:
    """A message to a member that is held."""
    heard = Heard(OWN, 99, b"x", 1, "sender", "77", 1)
    return Held(heard, epoch, position, targeted=True)


def test_places_tell_what_came_before() -> None:
    """Only messages of their epoch; where no history is recorded none did."""
    place = Place("1", 3, 5)
    assert [place.has("1", position) for position in (0, 4, 5, 6)] == [False, True, True, False]
    assert not place.has("2", 4)
    assert not Place("1", 3, None).has("1", 1)
    assert Place("2", 1, 0).is_behind(place)
    assert not place.is_behind(place)
    assert place.at_position(9) == Place("1", 3, 9)
    assert place.at_position(2) == place


def test_its_place_passes_what_is_put() -> None:
    """A broadcast has a number, a message to a member has none, a plain PUBLISH is nowhere."""
    one = Waiting(Place("1", 3, 5), 0)
    one.pass_by(targeted(7))
    assert one.place == Place("1", 3, 7)
    assert one.has(targeted(7))
    assert not one.has(targeted(8))
    one.pass_by(targeted(9, "2"))
    assert one.place == Place("1", 3, 7)
    one.pass_by(published(4, 8))
    assert one.place == Place("1", 4, 8)
    one.pass_by(Held.of(Heard(CHANNEL, 0, b"plain", 0, "")))
    assert one.place == Place("1", 4, 8)


def test_lost_broadcasts_are_counted_by_their_numbers() -> None:
    """Messages to members lie between positions, and are no broadcasts."""
    one = Waiting(Place("1", 3, 5), 0)
    one.come_to(0, 20)
    assert (one.lost, one.place) == (0, Place("1", 3, 20))
    one.come_to(6, 15)
    assert (one.lost, one.place) == (3, Place("1", 6, 20))


def test_the_first_broadcast_that_is_held_tells_what_lies_before_it() -> None:
    """Messages to members ahead of it tell nothing of that."""
    one = Waiting(Place("1", 3, 5), 0)
    assert not one.follows
    one.until = 9
    assert one.unread == 6
    one.held += [targeted(6), published(4, 7)]
    assert one.follows
    assert (one.size, one.unread) == (2, 0)
    one.overflowed = True
    assert not one.follows
    one.held.popleft()
    one.held[0] = published(6, 9)
    one.overflowed = False
    assert not one.follows
    assert one.unread == 2


def test_the_place_before_what_is_held() -> None:
    """By the first one that has a position."""
    one, known = Waiting(Place("1", 3, 5), 0), Place("2", 8, 30)
    assert one.before_held(known) is known
    one.held.append(Held.of(Heard(CHANNEL, 0, b"plain", 0, "")))
    assert one.before_held(known) is known
    one.held.append(published(7, 25, "2", messages=2))
    assert one.before_held(known) == Place("2", 5, 23)
    one.held.appendleft(targeted(23, "2"))
    assert one.before_held(known) == Place("2", 8, 22)


def test_a_channel_goes_on_behind_its_place() -> None:
    """Under its epoch, or under one that begins at its last message, or where nothing was."""
    place = Place("1", 3, 5)
    assert start_of(place, Counter("1", 9, None, 12)) == 5
    assert start_of(place, Counter("2", 9, ("1", 3), 12)) == 0
    assert start_of(place, Counter("2", 9, ("1", 4), 12)) is None
    assert start_of(Place(NO_COUNTER, 0, 0), Counter("2", 9, None, 9)) == 0
    assert start_of(place, Counter("2", 9, None, 9)) is None


def test_the_items_of_an_envelope_are_taken_apart() -> None:
    """Those with a position each by itself, sealed or not, and the others as they are."""
    message, reply = [1, "room:7", "alice", b"x"], [5, "room:7", "alice", 3]
    sealed = [ROUTED, 12, b"seal", pack(message)]
    items = [["c", message, "1 6"], ["c", reply], ["c", sealed, "1 7"], ["c", message, "broken"]]
    body = b"".join(pack(item) for item in items)
    heard = Heard(OWN, 9, b"head" + body, 4, "sender", "77", 4)
    found = targets_in(heard)
    assert b"".join(packed for _, _, packed in found) == body
    assert [name for name, _, _ in found] == ["room:7", "", "room:7", ""]
    held = [one for _, one, _ in found if one is not None]
    assert [(one.epoch, one.position, one.targeted) for one in held] == [
        ("1", 6, True),
        ("1", 7, True),
    ]
    assert [one.heard.payload for one in held] == [b"head" + pack(items[at]) for at in (0, 2)]
    assert {(one.heard.number, one.heard.messages) for one in held} == {(9, 1)}


@pytest.mark.parametrize("item", [[], [1], [ROUTED, 1, b"seal"], [ROUTED, 1, b"seal", b""], "x"])
def test_an_item_that_cannot_be_read_is_broken(item: object) -> None:
    """Nothing of its envelope is held."""
    heard = Heard(OWN, 9, pack(["c", item, "1 6"]), 0, "sender", "77", 1)
    with pytest.raises(BrokenEnvelopeError):
        targets_in(heard)
