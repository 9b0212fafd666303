"""The rules about each connection in a namespace with a history, which hold with any messages.

It hears a message once, in order, and nothing of another user's. It hears one that an earlier
connection heard only if nobody could know that: the client had left, or was cut off, or its node or
Redis was broken. It is told that something is lost only if Redis may have lost it, and that it has
no past only if it has none.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from tools.chaos import past
from tools.chaos.books import ABNORMAL, BEFORE, SOON, Books, Call, Window
from tools.chaos.order import without_one_order
from tools.chaos.ways import Leg, Message, Way

PINGED = 20.0 + SOON
"""Seconds within which a node knows what a client has: its pings, and a while to store that."""
LATELY = past.SECONDS + SOON
"""Seconds for which Redis may have lost something lately."""


class Rules:
    """Judges connections; knows all calls and faults of a run.

    Attributes:
        calls: by sender and number.
    """

    def __init__(self) -> None:
        self.calls: dict[Message, Call] = {}
        self._windows: list[Window] = []
        self._failures: list[str] = []

    def open(self, books: Books, failures: list[str]) -> None:
        """Another round is judged; what is wrong goes to ``failures``."""
        self._failures = failures
        self._windows += [one for one in books.windows if one not in self._windows]
        self.calls.update({(call.sender, call.number): call for call in books.past.calls})

    # -- what was broken -------------------------------------------------------------------

    def excused(self, call: Call, leg: Leg, after: float = 0.0) -> bool:
        """Whether something was broken between the sender of a call and a connection."""
        nodes = (call.sender, leg.about.node)
        return any(window.excuses(call, nodes, after) for window in self._windows)

    def steady(self, call: Call, leg: Leg) -> bool:
        """Whether a connection was there for as long as it matters for a call."""
        closed = leg.about.closed
        if closed is not None and closed <= call.ended + SOON:
            return False
        return not self.excused(call, leg, SOON)

    def amid(self, time: float) -> str:
        """When this was, in words: how long after the begin of what was broken."""
        return "".join(
            f", {time - one.begun:+.1f} s from the begin of {one.ended - one.begun:.1f} s of harm"
            for one in self._windows[-2:]
        )

    def _broken(self, nodes: set[str], since: float, until: float) -> bool:
        """Whether something was broken at one of these nodes at a time."""
        return any(
            (one.nodes is None or one.nodes & nodes)
            and one.begun - BEFORE <= until
            and since <= one.ended + SOON
            for one in self._windows
        )

    # -- one id ----------------------------------------------------------------------------

    def judge(self, way: Way, returns: Counter[str]) -> int:
        """Judge what the connections of an id were told and have heard in this round.

        Returns:
            How many messages came again.
        """
        repeated = 0
        for leg in way.legs:
            if not leg.judged and (leg.about.recovered or leg.about.closed is not None):
                leg.judged = True
                returns[leg.about.recovered or "untold"] += 1
                self._verdict(way, leg)
            for message in leg.about.heard:
                repeated += self._hear(way, leg, message)
        return repeated

    def _fail(self, leg: Leg, what: str) -> None:
        self._failures.append(f"{leg} {what}{self.amid(leg.about.opened)}")

    def _verdict(self, way: Way, leg: Leg) -> None:
        before, told = way.before(leg), leg.about.recovered
        if told == "False":
            if not self.forgotten(leg.about.began, leg.about.opened):
                self._fail(leg, "was told of a loss, and nothing was lost")
        elif told == "None" and before is not None and before.about.user == leg.about.user:
            self._fail(leg, f"has a past, and was told that it has none; before it was {before}")
        elif told == "True" and before is None:
            self._fail(leg, "was told of a past, and has none")

    def forgotten(self, since: float, until: float) -> bool:
        """Whether Redis may have lost lately, at some time, what it knew."""
        return any(
            one.forgets and one.begun <= until and since <= one.ended + LATELY
            for one in self._windows
        )

    def _hear(self, way: Way, leg: Leg, message: Message) -> bool:
        """Judge one message; gives whether it came again."""
        call = self.calls.get(message)
        earlier = way.heard_on.get(message)
        way.heard_on[message] = leg
        if message in leg.heard:
            self._fail(leg, f"heard {message} twice")
            return False
        leg.heard.add(message)
        if call is None or call.namespace != leg.about.namespace:
            self._fail(leg, f"heard {message}, which nobody sent there")
            return False
        if call.id not in ("", leg.about.id) or self._is_anothers(way, leg, call):
            self._fail(leg, f"heard what was for another: {call}, {way.story(call)}")
        elif leg.about.recovered in ("None", "False") and call.ended < leg.about.began:
            self._fail(leg, f"heard what was sent before it began anew: {call}")
        self._check_order(leg, call)
        if earlier is None:
            return False
        if not self._may_repeat(way, earlier, leg, call):
            self._fail(leg, f"heard what {earlier} had heard: {call}")
        return True

    def _is_anothers(self, way: Way, leg: Leg, call: Call) -> bool:
        """Whether a targeted message was sent while another user had the id, or is kept for
        nobody."""
        if not call.id or call.ended >= leg.about.began:
            return False
        if not past.keeps_targeted(call.namespace):
            return True
        holder, user = way.holder(call), leg.about.user
        return holder is not None and holder.about.user != user and not way.had(user, call)

    def _check_order(self, leg: Leg, call: Call) -> None:
        """Only what is targeted and not kept may come ahead of an earlier broadcast that its node
        had missed, and behind a later one while the id comes back."""
        targeted, last = bool(call.id), leg.last
        same = last.get((call.sender, targeted), 0)
        other = last.get((call.sender, not targeted), 0)
        behind = call.number < other
        if behind and not past.keeps_targeted(call.namespace):
            broken = self._broken({leg.about.node}, call.begun, call.ended)
            behind = call.begun > leg.about.opened if targeted else not broken
        if call.number < same or behind:
            self._fail(leg, f"heard {call} behind {max(same, other)}")
        last[call.sender, targeted] = max(same, call.number)

    def _may_repeat(self, way: Way, earlier: Leg, leg: Leg, call: Call) -> bool:
        """Whether it could be unknown in the end that the earlier connection had heard it."""
        one = earlier.about
        since, ended = max(call.begun, one.began), one.closed
        legs = way.legs[way.legs.index(earlier) : way.legs.index(leg) + 1]
        nodes = {node for each in legs for node in (each.about.node, *each.about.tried)}
        if self._broken(nodes, since, leg.about.opened):
            return True
        unanswered = one.left is not None or one.code == ABNORMAL
        return unanswered and ended is not None and ended - since <= PINGED


def no_one_order(ways: Iterable[Way], calls: Mapping[Message, Call]) -> bool:
    """Whether the broadcasts of this round came in different orders."""
    return bool(
        without_one_order(
            [one for one in leg.about.heard if one in calls and not calls[one].id]
            for way in ways
            for leg in way.legs
        )
    )
