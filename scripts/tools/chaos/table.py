"""The printed tables of a run, and its JSON."""

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tools.chaos.account import COLUMNS, Account
from tools.chaos.growth import Growth
from tools.chaos.past_account import PastAccount
from tools.chaos.runner import Round, Run
from tools.harness import markdown

NOTICED, HEALED = 3.5, 5.0
"""Targets: seconds after the begin of a fault, and after Redis is whole again."""


def messages(account: Account) -> str:
    """The outcome of every message and recipient, by kind."""
    head = ["message", "calls", *COLUMNS]
    rows = [
        [kind, *(f"{row[column]:,}" for column in head[1:])] for kind, row in account.rows.items()
    ]
    return markdown.table([head, *rows])


def faults(rounds: Sequence[Round]) -> str:
    """The costs of each kind of fault: the median of its rounds, and the worst."""
    by_name: dict[str, list[Round]] = {}
    for one in rounds:
        by_name.setdefault(one.fault, []).append(one)
    head = [
        *("fault", "times", f"noticed after (≤ {NOTICED:g} s)", "refused for"),
        *(f"healed after (≤ {HEALED:g} s)", "longest call", "lost, and reported", "failures"),
    ]
    rows = [
        [
            name,
            str(len(of)),
            _seconds([one.noticed for one in of if one.noticed is not None]),
            _seconds([one.refused for one in of]),
            _seconds([one.healed for one in of]),
            _seconds([one.longest for one in of]),
            f"{sum(one.lost for one in of):,} of {sum(one.due for one in of):,}",
            str(sum(one.failures for one in of)),
        ]
        for name, of in sorted(by_name.items())
    ]
    return markdown.table([head, *rows])


def past(account: PastAccount) -> Iterator[str]:
    """The outcome of the messages to namespaces with a history, and of each return."""
    yield f"messages of a past, for each id: {_counted(account.pairs)}"
    yield f"connections told of their past: {_counted(account.returns)}"
    yield f"parked: {account.parked:,}; received again on a later connection: {account.repeated:,}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items()) or "none"


def as_json(about: dict[str, Any], run: Run, grown: Iterable[Growth]) -> str:
    """Everything, as one JSON object."""
    lists: dict[str, Iterable[Any]] = {
        "rounds": run.rounds,
        "samples": run.samples,
        "growth": grown,
    }
    told = {name: [vars(one) for one in some] for name, some in lists.items()}
    accounts = {"account": vars(run.account), "past": vars(run.past)}
    return json.dumps({**about, **accounts, **told}, indent=2) + "\n"


def _seconds(values: Sequence[float]) -> str:
    if not values:
        return "never"
    median = f"{statistics.median(values):.2f} s"
    return median if len(values) == 1 else f"{median}, at most {max(values):.2f} s"
