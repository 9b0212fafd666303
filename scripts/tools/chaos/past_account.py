"""Whether each message to a namespace with a history was received, or its loss was told.

An id that comes back has a past: all that was sent to it, or to all, since it was first there. Each
message of it was received by one of its connections, or one that was opened later was told that
something is lost, or a gap of its node names it, or its sender was told. The decisions are made on
tables; what holds of each connection by itself is in :mod:`.past_rules`.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tools.chaos import past
from tools.chaos.books import LEASE, SOON, Books, Call
from tools.chaos.past_rules import Rules, no_one_order
from tools.chaos.ways import Leg, Way

ADMITTED = ("absent", "unreachable", "refused", "timed_out", "unknown", "not_sent")
"""Outcomes by which the sender knows that it may not come."""
NOT_SENT = ("absent", "not_sent")
"""Outcomes by which it must not come."""
Key = tuple[str, str]
"""A gap: a namespace, or "" for targeted messages, and the node that reports it."""


@dataclass
class PastAccount:
    """The outcome of each message for each id that should get it, and of each return.

    Attributes:
        pairs: how many came ("received"), or why they did not.
        returns: how many connections were told what about their past.
        parked: calls that were answered so.
        repeated: messages that came again on a later connection.
        failures: what is wrong.
        owed: how many messages must be in a node's gaps.
    """

    pairs: Counter[str] = field(default_factory=Counter)
    returns: Counter[str] = field(default_factory=Counter)
    parked: int = 0
    repeated: int = 0
    failures: list[str] = field(default_factory=list)
    owed: Counter[Key] = field(default_factory=Counter)

    def add(self, other: "PastAccount") -> None:
        """Take another round's account into this one."""
        self.pairs += other.pairs
        self.returns += other.returns
        self.parked += other.parked
        self.repeated += other.repeated
        self.failures += other.failures


class Chronicle:
    """The past of every id, over all rounds: what is told in one may be of an earlier one."""

    def __init__(self) -> None:
        self._ways: dict[str, dict[str, Way]] = defaultdict(dict)
        self._rules = Rules()

    def account(self, books: Books) -> PastAccount:
        """Account for the messages of a round."""
        result = PastAccount()
        self._rules.open(books, result.failures)
        for one in books.past.connections:
            self._ways[one.namespace].setdefault(one.id, Way()).take(one)
        for namespace, ways in self._ways.items():
            for way in ways.values():
                result.repeated += self._rules.judge(way, result.returns)
            if no_one_order(ways.values(), self._rules.calls):
                result.failures.append(f"no one order of broadcasts in {namespace}")
        _Accountant(books, self._ways, self._rules, result).account()
        for ways in self._ways.values():
            for way in ways.values():
                way.rest()
        return result


class _Accountant:
    """The account of one round."""

    def __init__(
        self, books: Books, ways: dict[str, dict[str, Way]], rules: Rules, result: PastAccount
    ) -> None:
        self._books = books
        self._ways = ways
        self._rules = rules
        self._result = result
        self._bounds = {gap.node for gap in books.gaps if not gap.exact}
        self._reported: Counter[Key] = Counter()
        for gap in books.gaps:
            for namespace, count in gap.namespaces.items():
                self._reported[namespace, gap.node] += count
        self._owed: dict[Key, set[Call]] = defaultdict(set)

    def account(self) -> None:
        """See :meth:`Chronicle.account`."""
        for call in self._books.past.calls:
            self._result.parked += call.outcome == "parked"
            ways = self._ways[call.namespace]
            for id in [call.id] if call.id else list(ways):
                if id in ways and (holder := ways[id].holder(call)) is not None:
                    self._pair(call, ways[id], holder)
        for key, calls in self._owed.items():
            self._result.owed[key] = len(calls)
            namespace, node = key
            if node not in self._bounds and len(calls) > self._reported[key]:
                self._result.failures.append(
                    f"{node} missed {len(calls)} messages of {namespace or 'its own'}, and its gaps"
                    f" report {self._reported[key]}: one was {next(iter(calls))}"
                )

    def _pair(self, call: Call, way: Way, holder: Leg) -> None:
        leg = way.heard_on.get((call.sender, call.number))
        if why := self._wrong_answer(call, holder, heard=leg is not None):
            self._fail(call, way, why)
        elif leg is not None:
            self._result.pairs["received"] += 1
        elif call.outcome in ADMITTED:
            self._result.pairs["admitted"] += 1
        elif any(self._tells(one) for one in way.after(call)):
            self._result.pairs["told"] += 1
        elif not self._kept(call, way, holder) and not self._rules.steady(call, holder):
            self._result.pairs["not kept"] += 1
        else:
            self._owe(call, way, holder)

    def _tells(self, leg: Leg) -> bool:
        """Whether a connection was told of a loss, or had ended before it was told anything."""
        told = leg.about.recovered
        return told == "False" or (not told and leg.about.closed is not None)

    def _wrong_answer(self, call: Call, holder: Leg, *, heard: bool) -> str:
        """The rule that its outcome breaks, in words; "" for none."""
        if heard and call.outcome in NOT_SENT:
            return "arrived all the same"
        if call.outcome not in ADMITTED or self._rules.excused(call, holder, after=LEASE):
            return ""
        parks = call.outcome == "absent" and past.keeps_targeted(call.namespace)
        if parks and self._rules.forgotten(call.begun, call.ended):
            return ""
        sure = parks or call.outcome in ("unknown", "not_sent")
        return "while nothing was wrong" if sure or self._rules.steady(call, holder) else ""

    def _kept(self, call: Call, way: Way, holder: Leg) -> bool:
        """Whether the history has it for the one who comes back: not for another user."""
        if call.id and not past.keeps_targeted(call.namespace):
            return False
        return all(leg.about.user == holder.about.user for leg in way.after(call))

    def _owe(self, call: Call, way: Way, holder: Leg) -> None:
        """It must be in a gap of a node that had the id when it was sent."""
        soon = [leg for leg in way.after(call) if leg.about.opened <= call.ended + SOON]
        named = "" if call.id else call.namespace
        for node in (leg.about.node for leg in (holder, *soon)):
            if self._reported[named, node] or node in self._bounds:
                self._owed[named, node].add(call)
                self._result.pairs["in a gap"] += 1
                return
        self._fail(call, way, "lost, and nobody was told")

    def _fail(self, call: Call, way: Way, why: str) -> None:
        self._result.pairs["failures"] += 1
        self._result.failures.append(
            f"{call}: {why} ({way.story(call)}{self._rules.amid(call.begun)})"
        )
