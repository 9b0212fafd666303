"""The invariants: what docs/history.md promises to clients that come back.

A *chain* is what one reader, an id with a user, got over several stays: it begins with one that
was told None (a newcomer) or False (something is lost), and goes on with those told True. In it

- no message is skipped in silence: behind the first one each that is for the reader has come before
  any later one, unless its sender was told that it may not arrive, or a node told it in a gap;
- each connection gets messages in the order of the history, none twice; and none that another one
  had got, if the node knew that, and had stored it;
- nobody gets a message that excludes its id, nor one that was sent to another id or user alone.
"""

from collections.abc import Iterator

from cluster_pool import SendResult
from cluster_pool.core.history import HistoryRules
from tests.cluster.returns.witness import Record, Spot
from tests.cluster.returns.world import HISTORY, HOME, LIMITS, SIDE, Leg, Stay, World

NOWHERE = Spot(0, 0)
RULES = HistoryRules(HISTORY, 1.0)
MARGIN = 0.8
"""How much of a bound of a history may be used before a loss is no surprise."""


def word_of(stay: Stay | Leg) -> str:
    """The word by which a connection reads what was sent to its id alone."""
    leg = stay if isinstance(stay, Leg) else stay.leg
    return RULES.reader(HOME, leg.reader[1])


def got(world: World, leg: Leg, namespace: str) -> list[int]:
    """The numbers of the messages of a namespace that a client has got by a connection."""
    numbers = [int(text) for text in leg.wire.got]
    return [one for one in numbers if world.messages[one].namespace == namespace]


def records(world: World, leg: Leg, namespace: str) -> list[Record]:
    """The same, as far as they were recorded."""
    seen = world.witness.records[namespace]
    return [seen[one] for one in got(world, leg, namespace) if one in seen]


# -- always --------------------------------------------------------------------------------------


def check_always(world: World) -> None:
    """Order, privacy, repeats, and what the answers say; whatever has happened."""
    world.witness.look()
    for leg in world.legs:
        for namespace in (HOME, SIDE):
            check_order(world, leg, namespace)
            check_privacy(world, leg, namespace)
    check_repeats(world)
    for stay in world.stays:
        if not stay.checked:
            stay.checked = True
            check_told(world, stay)


def check_order(world: World, leg: Leg, namespace: str) -> None:
    """A connection gets messages in order, each once.

    Where its node was interrupted, messages to it alone may come ahead of earlier broadcasts.
    """
    found = records(world, leg, namespace)
    parts = [found]
    if leg.node.interrupted:
        parts = [[one for one in found if one.id], [one for one in found if not one.id]]
    for part in parts:
        spots = [one.spot for one in part]
        assert spots == sorted(set(spots)), f"{leg} got {[one.message for one in found]}"


def check_privacy(world: World, leg: Leg, namespace: str) -> None:
    """A connection gets nothing that is not for it."""
    for number in got(world, leg, namespace):
        message = world.messages[number]
        assert message.id in ("", leg.reader[0]), f"{leg} got {message}"
        assert leg.reader[0] not in message.excluded, f"{leg} got {message}"
    for record in records(world, leg, namespace):
        assert record.is_for(leg.reader[0], word_of(leg)), f"{leg} got {record}"


def check_repeats(world: World) -> None:
    """Nothing that was certainly received is sent again, unless behind what was parked."""
    before: dict[tuple[str, str | None], set[int]] = {}
    for leg in world.legs:
        received = before.setdefault(leg.reader, set())
        again = received & {int(text) for text in leg.wire.got}
        again -= {one for one in again if was_parked_before(world, leg, one)}
        assert not again, f"{leg} got {again} again"
        received |= leg.proven


def was_parked_before(world: World, leg: Leg, number: int) -> bool:
    """Whether a message to the same id was parked ahead of a message, so that all comes again."""
    seen = world.witness.records[world.messages[number].namespace]
    return any(
        one.id == leg.reader[0]
        and one.spot < seen[number].spot
        and world.messages[one.message].result is SendResult.PARKED
        for one in seen.values()
    )


def check_told(world: World, stay: Stay) -> None:
    """A new stay was told rightly whether it comes back."""
    before = world.stays_of(stay.namespace, stay.leg.reader[0])
    at = before.index(stay)
    former = before[at - 1] if at else None
    if is_other_between(world, former, stay):
        return
    told = stay.recovered
    if former is None or former.left or former.leg.reader != stay.leg.reader:
        lost = world.ever & {"flushed", "scripts"}  # a node takes both for a restart
        assert told is None or (told is False and lost), f"{stay}, a newcomer, was told {told}"
    elif not stay.spoilt:
        assert told is True or (told is False and may_be_lost(world, former, stay)), (
            f"{stay} was told {told}, and came back after {former}"
        )
    elif told is None:
        assert stay.spoilt & {"time", "positions"}, f"{stay} was told nothing: {stay.spoilt}"


def is_other_between(world: World, former: Stay | None, stay: Stay) -> bool:
    """Whether a connection that was never opened may have had the id between two stays."""
    begin = 0 if former is None else former.leg.number + 1
    between = world.legs[begin : stay.leg.number]
    return any(one.reader[0] == stay.leg.reader[0] and not one.stays for one in between)


def may_be_lost(world: World, former: Stay, stay: Stay) -> bool:
    """Whether what it may have missed exceeds a bound, or nearly does."""
    bounds = HISTORY[stay.namespace]
    since = [
        one for one in world.witness.records[stay.namespace].values() if one.spot > former.begun
    ]
    size = sum(world.messages[one.message].size for one in since)
    return (
        len(since) > MARGIN * bounds.messages
        or size > MARGIN * LIMITS.outbox_bytes
        or stay.asked_at - former.asked_at > MARGIN * bounds.seconds
    )


# -- when all is calm ----------------------------------------------------------------------------


def lacking(world: World) -> str:
    """Why the clients lack something that they should have; "" when they do not."""
    world.witness.look()
    for namespace in (HOME, SIDE):
        for id in sorted({one.reader[0] for one in world.legs}):
            for stay, missing in skipped(world, namespace, id):
                if missing:
                    return f"{stay} lacks {missing} of {got(world, stay.leg, namespace)}"
    return ""


def skipped(world: World, namespace: str, id: str) -> Iterator[tuple[Stay, list[Record]]]:
    """Each stay of an id, with the messages that its client was not given, and should have been."""
    chain = excused = NOWHERE
    former: Stay | None = None
    for stay in world.stays_of(namespace, id):
        found = records(world, stay.leg, namespace)
        first = min((one.spot for one in found), default=None)
        if stay.recovered is not True or former is None or former.leg.reader != stay.leg.reader:
            chain, excused = stay.opened, NOWHERE
            if first is not None:
                chain = min(chain, Spot(first.epoch, first.number - 1))
        excused = max(excused, stay.leg.excused.get(namespace, NOWHERE))
        end = max((one.spot for one in found), default=NOWHERE)
        if is_present(stay):
            end = world.witness.last(namespace)
        have = had(world, stay, namespace)
        yield (
            stay,
            [
                one
                for one in world.witness.records[namespace].values()
                if max(chain, excused) < one.spot <= end
                and one.is_for(id, word_of(stay))
                and one.message not in have
                and not world.messages[one.message].refused
            ],
        )
        former = stay


def had(world: World, stay: Stay, namespace: str) -> set[int]:
    """All that a reader has got by a connection, and by those before it."""
    found: set[int] = set()
    for leg in world.legs:
        if leg.reader == stay.leg.reader:
            found.update(got(world, leg, namespace))
        if leg is stay.leg:
            break
    return found


def is_present(stay: Stay) -> bool:
    """Whether a stay goes on, as far as its node knows."""
    leg = stay.leg
    if stay.left or not leg.open or not leg.wire.open:
        return False
    assert leg.connection is not None
    return stay.namespace in leg.connection.namespaces and stay is leg.stay_in(stay.namespace)
