"""The printed tables of a run, and its JSON."""

import json
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from tools.chaos.account import COLUMNS, Account
from tools.chaos.growth import Growth
from tools.chaos.runner import Round, Run
from tools.harness import markdown


def messages(account: Account) -> str:
    """The outcome of every message and recipient, by kind."""
    head = ["message", "calls", *COLUMNS]
    rows = [
        [kind, *(f"{row[column]:,}" for column in head[1:])] for kind, row in account.rows.items()
    ]
    return markdown.table([head, *rows])


def faults(rounds: Sequence[Round]) -> str:
    """How long each kind of fault was felt: the median of its rounds, and the worst."""
    by_name: dict[str, list[Round]] = {}
    for one in rounds:
        by_name.setdefault(one.fault, []).append(one)
    head = [
        *("fault", "times", "noticed", "ready again after it", "registered after it"),
        *("longest call", "failures"),
    ]
    rows = [
        [
            name,
            str(len(of)),
            _seconds([one.noticed for one in of if one.noticed is not None]),
            _seconds([one.ready for one in of]),
            _seconds([one.registered for one in of]),
            _seconds([one.longest for one in of]),
            str(sum(one.failures for one in of)),
        ]
        for name, of in sorted(by_name.items())
    ]
    return markdown.table([head, *rows])


def as_json(about: dict[str, Any], run: Run, grown: Iterable[Growth]) -> str:
    """Everything, as one JSON object."""
    lists: dict[str, Iterable[Any]] = {
        "rounds": run.rounds,
        "samples": run.samples,
        "growth": grown,
    }
    told = {name: [vars(one) for one in some] for name, some in lists.items()}
    return json.dumps({**about, "account": vars(run.account), **told}, indent=2) + "\n"


def _seconds(values: Sequence[float]) -> str:
    if not values:
        return "never"
    median = f"{statistics.median(values):.2f} s"
    return median if len(values) == 1 else f"{median}, at most {max(values):.2f} s"
