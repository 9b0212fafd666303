"""The rules about calls without a message: closes, counts, members, and locations."""

from tools.chaos.books import CLOSE, COUNT, LOCATE, Call, Connection
from tools.chaos.index import Index


def other_failure(index: Index, call: Call) -> str:
    """The rule that a call broke, in words; "" for none."""
    there = [one for one in index.due(call) if index.stayed(call, one)]
    if index.excused(call, there):
        return ""
    if call.outcome in ("unknown", "not_sent"):
        absent = call.kind in (CLOSE, LOCATE) and all(one.id != call.id for one in there)
        return "" if absent and index.unsure(call) else "while nothing was wrong"
    if call.kind == CLOSE:
        return _close(there, call)
    if call.kind == LOCATE:
        return _locate(index.owners(call), there, call)
    if call.kind == COUNT:
        return _less(len({one.id for one in there}), int(call.outcome[1:]))
    missing = {one.id for one in there} - {*call.outcome[1:].split(" ")}
    return f"without {sorted(missing)}" if missing else ""


def _close(there: list[Connection], call: Call) -> str:
    still = [one for one in there if one.id == call.id]
    if still and call.outcome in ("delivered", "absent"):
        return f"and {still[0]} stays open"
    return ""


def _locate(owners: list[Connection], there: list[Connection], call: Call) -> str:
    if len(owners) == 1 and owners[0] in there and call.outcome != f"={owners[0].node}":
        return f"and it is {owners[0]}"
    return ""


def _less(least: int, count: int) -> str:
    return f"and at least {least} were there" if count < least else ""
