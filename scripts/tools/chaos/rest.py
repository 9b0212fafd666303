"""Whether a program that is asked for nothing any more has nothing left to do."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

SLACK = 3
"""Tasks that may be on their way at the moment of a look."""


class Rest:
    """Compares each program with what it held when it was first at rest."""

    def __init__(self) -> None:
        self._first: dict[str, Mapping[str, int]] = {}
        self._said: set[str] = set()

    def failures(self, figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Everything that is still pending or running, and was not :meth:`said` before."""
        found = [text for name, one in figures.items() for text in self._of(name, one)]
        return [text for text in found if text not in self._said]

    def said(self, failures: Iterable[str]) -> None:
        """These are reported; what stays as it is, is not reported again."""
        self._said.update(failures)

    def _of(self, name: str, figures: Mapping[str, Any]) -> list[str]:
        wrong = []
        if figures["pending"]:
            wrong.append(f"{name} is quiet and has {figures['pending']} pending")
        first = self._first.setdefault(name, {"tasks": figures["tasks"], **figures["running"]})
        if figures["tasks"] > first["tasks"] + SLACK:
            more = Counter(figures["running"]) - Counter(first)
            wrong.append(
                f"{name} is quiet and runs {figures['tasks']} tasks beside its connections,"
                f" and ran {first['tasks']} at first: more are {dict(more)}"
            )
        return wrong
