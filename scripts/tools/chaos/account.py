"""Whether every message is accounted for. Decides on tables; knows no process, socket or clock.

The books of a round hold every call, what each connection heard and how it ended, what each node
reported as missed, and when something was broken on purpose. A pair is one message and one
connection that should get it; of a targeted message there is one. Each pair stands in one column.

What a gap reports is checked in both directions: what did not arrive at a connection that stayed
open must be in its node's gaps, and a gap must not report more than did not arrive. A gap that
says of itself that it is a lower bound is held to the second alone.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tools.chaos.books import ABNORMAL, CLOSE, OTHERS, PUBLISH, ROWS, Books, Call, Connection
from tools.chaos.connections import connection_failures
from tools.chaos.index import Index
from tools.chaos.last_one import last_one_failures
from tools.chaos.reads import other_failure
from tools.chaos.sparse import NOBODY

DELIVERED, MISSING, REFUSED, UNDELIVERED, BROKEN, UNKNOWN, NOT_SENT, FAILED = COLUMNS = (
    "delivered",
    "missing",
    "refused",
    "undelivered",
    "with its connection",
    "unknown",
    "not sent",
    "failures",
)

REFUSALS = ("absent", "unreachable", "refused")
MAYBE_PUBLISHED = ("routed", "timed_out", "unreachable", "unknown")
FAILED_CALLS = ("unknown", "not_sent")
TROUBLED = (*REFUSALS, "timed_out", "unheard", *FAILED_CALLS)
"""Outcomes for which there must be a reason."""


@dataclass
class Account:
    """The outcome of every pair.

    Attributes:
        rows: how many pairs, by row and column.
        failures: what is wrong.
        bounds: gaps that said that they were lower bounds.
        others: calls that carried no message, by kind.
        unanswered: calls without an answer at their deadline and a second.
        last_ones: callbacks for a release that emptied a namespace.
        roamed: members of rooms when all was quiet, which the registry had, too.
        people: connections of users when all was quiet.
        followed: how often a connection heard a targeted message right behind the broadcast that
            its sender had sent before it, of the sparse stream.
    """

    rows: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in ROWS}
    )
    failures: list[str] = field(default_factory=list)
    bounds: int = 0
    others: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    followed: int = 0
    last_ones: int = 0
    roamed: int = 0
    people: int = 0

    def add(self, other: "Account") -> None:
        """Take another round's account into this one."""
        for kind, row in other.rows.items():
            self.rows[kind].update(row)
        self.failures += other.failures
        self.bounds += other.bounds
        self.others += other.others
        self.unanswered += other.unanswered
        self.followed += other.followed
        self.last_ones += other.last_ones
        self.roamed += other.roamed
        self.people += other.people


def account(books: Books, owed: Mapping[tuple[str, str], int] | None = None) -> Account:
    """Account for every message of a round, but those to namespaces with a history.

    Args:
        owed: how many of these the gaps must name, too, by namespace and node.
    """
    return _Accountant(books, owed or {}).account()


class _Accountant:
    def __init__(self, books: Books, owed: Mapping[tuple[str, str], int]) -> None:
        self._books = books
        self._owed_too = owed
        self._result = Account()
        self._index = Index(books)
        self._owed: dict[tuple[str, str], dict[Call, int]] = defaultdict(dict)

    def account(self) -> Account:
        self._result.bounds = sum(not gap.exact for gap in self._books.gaps)
        self._result.failures += connection_failures(self._index)
        self._result.followed = self._index.followed()
        self._result.last_ones = len(self._books.emptied or ())
        self._result.roamed = self._books.roamed
        self._result.people = self._books.people
        self._result.failures += last_one_failures(self._index)
        self._unanswered()
        self._result.failures += self._books.restless
        for call in self._books.calls:
            if call.kind in OTHERS:
                self._other(call)
                continue
            self._result.rows[call.row]["calls"] += 1
            if call.id:
                self._targeted(call)
            else:
                self._broadcast(call)
        reported = self._reported()
        self._settle_owed(reported)
        self._check_reported(reported)
        self._check_undelivered()
        return self._result

    def _put(self, call: Call, column: str, pairs: int = 1) -> None:
        self._result.rows[call.row][column] += pairs

    def _fail(self, call: Call, why: str) -> None:
        self._put(call, FAILED)
        heard_by = [str(one) for one in self._index.heard_by[call.sender, call.number]]
        self._result.failures.append(
            f"{call}: {why} (of {[str(one) for one in self._index.owners(call)]}, heard by"
            f" {heard_by}, took {call.ended - call.begun:.2f} s{self._index.amid(call.begun)})"
        )

    def _unanswered(self) -> None:
        self._result.unanswered = len(self._books.unanswered)
        for one in self._books.unanswered:
            self._result.failures.append(
                f"{one.about} of {one.sender} was not answered within {one.seconds:.1f} s"
                f"{self._index.amid(one.found - one.seconds)}"
            )

    # -- one call --------------------------------------------------------------------------

    def _other(self, call: Call) -> None:
        self._result.others[call.kind] += 1
        why = other_failure(self._index, call)
        if why:
            self._result.failures.append(f"{call}: {why}")

    def _targeted(self, call: Call) -> None:
        heard_by = self._index.heard_by[call.sender, call.number]
        owners = self._index.owners(call)
        steady = any(one.opened < call.begun for one in owners) and all(
            self._index.stayed(call, one) for one in owners
        )
        if len(heard_by) > 1:
            self._fail(call, f"arrived {len(heard_by)} times")
        elif heard_by and call.outcome in (*REFUSALS, "not_sent"):
            self._fail(call, "arrived all the same")
        elif (
            call.outcome in (TROUBLED if steady else FAILED_CALLS)
            and not self._index.excused(call, owners)
            and (steady or not self._index.unsure(call))
        ):
            self._fail(call, "while nothing was wrong")
        elif heard_by:
            self._put(call, DELIVERED)
        elif call.outcome in REFUSALS:
            self._put(call, REFUSED)
        elif call.outcome in ("unknown", "not_sent"):
            self._put(call, UNKNOWN if call.outcome == "unknown" else NOT_SENT)
        elif call.id == NOBODY:
            self._fail(call, "to nobody")
        elif any(one.code == ABNORMAL for one in owners) or self._index.left(call, owners):
            self._put(call, BROKEN)
        elif call.outcome == "delivered":
            self._fail(call, "and never arrived")
        elif not steady:
            self._put(call, UNDELIVERED)
        elif not self._index.excused(call, owners):
            self._fail(call, "lost while nothing was wrong")
        else:
            self._owed["", owners[0].node][call] = 1

    def _broadcast(self, call: Call) -> None:
        heard_by = self._index.heard_by[call.sender, call.number]
        due = self._index.due(call)
        if heard_by and call.outcome in ("unheard", "not_sent"):
            self._fail(call, f"arrived {len(heard_by)} times")
            return
        staying = [one for one in due if self._index.stayed(call, one)]
        failed = call.outcome in FAILED_CALLS
        unheard = call.outcome == "unheard" or (failed and call.kind == PUBLISH)
        concerned = staying if unheard else []
        wrong = concerned or (failed and not unheard)
        if wrong and not self._index.excused(call, concerned):
            self._fail(call, "while nothing was wrong")
            return
        self._put(call, DELIVERED, len(heard_by))
        published = bool(heard_by) or call.outcome in ("heard", "unheard")
        nodes = {one.node for one in heard_by}
        for connection in due:
            if connection in heard_by:
                continue
            if connection not in staying:
                self._put(call, BROKEN)
            elif not published:
                self._put(call, UNKNOWN if call.outcome == "unknown" else NOT_SENT)
            elif connection.node in nodes:
                self._fail(call, f"heard by others at its node, not by {connection}")
            else:
                self._not_heard(call, connection)

    def _not_heard(self, call: Call, connection: Connection) -> None:
        """It was published, and the node of this connection did not hear it."""
        if not self._index.excused(call, [connection]):
            self._fail(call, f"did not arrive at {connection} while nothing was wrong")
        elif call.kind == PUBLISH:
            self._put(call, MISSING)
        else:
            owed = self._owed[call.namespace, connection.node]
            owed[call] = owed.get(call, 0) + 1

    # -- gaps ------------------------------------------------------------------------------

    def _reported(self) -> Counter[tuple[str, str]]:
        """How many messages gaps report, by namespace and node."""
        reported: Counter[tuple[str, str]] = Counter()
        for gap in self._books.gaps:
            for namespace, count in gap.namespaces.items():
                reported[namespace, gap.node] += count
        return reported

    def _settle_owed(self, reported: Counter[tuple[str, str]]) -> None:
        """A message that did not arrive must be in the gaps, unless these are lower bounds."""
        bounds = {gap.node for gap in self._books.gaps if not gap.exact}
        for (namespace, node), owed in self._owed.items():
            covered = math.inf if node in bounds else reported[namespace, node]
            covered -= self._owed_too.get((namespace, node), 0)
            for at, (call, pairs) in enumerate(owed.items()):
                self._put(call, MISSING if at < covered else FAILED, pairs)
            if len(owed) > covered:
                self._result.failures.append(
                    f"{node} missed {len(owed)} messages of {namespace or 'its own'}, and its gaps"
                    f" report {reported[namespace, node]}: one was {next(reversed(owed))}"
                )

    def _check_reported(self, reported: Counter[tuple[str, str]]) -> None:
        """No gap may name more than can have been missed."""
        for (namespace, node), count in reported.items():
            most = sum(1 for _ in self._may_be_missed(namespace, node))
            most += self._books.unkept.get(namespace, 0)
            most += sum(1 for _ in self._past_missed(namespace))
            if count > most:
                self._result.failures.append(
                    f"gaps of {node} report {count} messages of {namespace or 'its own'} as missed,"
                    f" and only {most} did not arrive"
                )

    def _may_be_missed(self, namespace: str, node: str) -> Iterator[Call]:
        """The numbered messages that this node may not have heard."""
        if namespace:
            for call in self._index.broadcasts[namespace]:
                heard_by = self._index.heard_by[call.sender, call.number]
                nodes = {connection.node for connection in heard_by}
                if node not in nodes and call.outcome != "not_sent":
                    yield call
            return
        for call in self._books.calls:
            targeted = call.id and (call.kind == CLOSE or call.kind not in OTHERS)
            heard_by = self._index.heard_by[call.sender, call.number]
            if targeted and not heard_by and call.outcome in MAYBE_PUBLISHED:
                yield call

    def _past_missed(self, namespace: str) -> Iterator[Call]:
        """Those of namespaces with a history that a node may have missed, and read later."""
        for call in self._books.past.calls:
            if call.outcome != "not_sent" and namespace == ("" if call.id else call.namespace):
                yield call

    def _check_undelivered(self) -> None:
        """The nodes must have counted messages without a connection; dead nodes cannot tell."""
        if self._books.killed:
            return
        undelivered = sum(row[UNDELIVERED] for row in self._result.rows.values())
        gaps = self._books.gaps
        known = self._books.undelivered + sum(gap.namespaces.get("", 0) for gap in gaps)
        if undelivered > known and all(gap.exact for gap in gaps):
            self._result.failures.append(
                f"{undelivered} messages met no connection, and the nodes count {known}"
            )
