"""The reports of a run's processes, gathered for the books of one round."""

import math
from collections import Counter
from typing import Any

from tools.chaos import past
from tools.chaos.books import (
    Books,
    Call,
    Connection,
    Emptied,
    Past,
    Registered,
    Reported,
    Unanswered,
    Window,
)


class Ledger:
    """Calls, gaps and windows since the books were last closed."""

    def __init__(self) -> None:
        self._begun: dict[tuple[str, int], Call] = {}
        self._ended: list[Call] = []
        self._gaps: list[Reported] = []
        self._windows: list[Window] = []
        self._before: list[Window] = []
        """Those of the round before, whose consequences may reach into this one."""
        self._unanswered: list[Unanswered] = []
        self._emptied: list[Emptied] = []
        self._unkept: Counter[str] = Counter()
        self.revoked: set[str] = set()
        """Tokens, of all rounds."""
        self.killed: set[str] = set()
        self.wrong: list[str] = []
        """Failures by themselves, whatever the books say."""

    def told(self, sender: str, what: str, fields: list[Any]) -> None:
        """A node or a publisher has told of a call or of a gap."""
        if what == "begun":
            kind, number, namespace, id, begun = fields
            call = Call(kind, sender, number, namespace, id, begun, math.inf, "unknown")
            self._begun[sender, number] = call
        elif what == "ended":
            number, ended, outcome, *why = fields
            call = self._begun.pop((sender, number))
            self._ended.append(call._replace(ended=ended, outcome=outcome, why="".join(why)))
        elif what == "emptied":
            self._emptied.append(Emptied(sender, *fields))
        elif what == "revoked":
            self.revoked.update(fields)
        elif what == "unkept":
            namespace, count = fields
            self._unkept[namespace] += count
        elif what == "left":
            self.wrong.append(f"{sender} has stopped and still runs {fields}")
        elif what == "logged":
            self.wrong.append(f"{sender} logged an error: {' '.join(fields)}")
        elif what == "unanswered":
            self._unanswered.append(Unanswered(sender, *fields))
        else:
            namespaces, exact = fields
            self._gaps.append(Reported(sender, namespaces, exact))

    def broken(self, window: Window) -> None:
        """Something was broken for a while."""
        self._windows.append(window)

    def close(
        self,
        collected: list[dict[str, Any]],
        registry: list[list[str]],
        undelivered: int,
        restless: list[str],
        roamed: int = 0,
        people: int = 0,
    ) -> Books:
        """The books of the round that ends here. Calls that never ended are unknown."""
        connections = [
            Connection(**{**one, "heard": [_message(text) for text in one["heard"]]})
            for one in collected
        ]
        calls = [*self._ended, *self._begun.values()]
        books = Books(
            [one for one in calls if not past.has_past(one.namespace)],
            [one for one in connections if not past.has_past(one.namespace)],
            self._gaps,
            [*self._before, *self._windows],
            frozenset(self.killed),
            undelivered,
            [Registered(*one) for one in registry],
            self._unanswered,
            [*restless, *self.wrong],
            self._emptied,
            roamed,
            people,
            self._unkept,
            Past(
                [one for one in calls if past.has_past(one.namespace)],
                [one for one in connections if past.has_past(one.namespace)],
            ),
        )
        self._begun, self._ended, self._gaps = {}, [], []
        self._emptied, self._unkept = [], Counter()
        self._before, self._windows = self._windows, []
        self.killed, self._unanswered, self.wrong = set(), [], []
        return books


def _message(text: str) -> tuple[str, int]:
    sender, number = text.split(" ")
    return sender, int(number)
