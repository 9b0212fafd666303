"""The counts of several contenders beside each other, as a Markdown table."""

from collections.abc import Sequence

from tools.chaos.contenders.count import NOT_SENT, UNANSWERED, UNHEARD, UNKNOWN, Counts
from tools.chaos.contenders.trial import PROBE, Trial

HEAD = (
    *("contender", "messages", "calls", "not sent", "unheard", "unknown", "delivered"),
    *("twice", "out of order", "lost", "reported", "lost in silence"),
    *("longest call", "longest silence", "deaf after the last", "errors"),
)
TEXT_COLUMNS = 2
FULL_PACE = 0.9

LEGEND = f"""\
One connection is due to get each message. "not sent": the call raised, and certainly nothing was
carried out. "unheard": it answered that nobody listened. "unknown": it raised, and may have been
carried out; of the others' exceptions only ChannelFull says more. "lost": it returned, and the
message never arrived. "reported": as missing, at the receiver, by an API for that; only ours has
one, and what was unheard is in it as well. "lost in silence": lost, and not reported once
everything unheard is taken off the reports. "deaf after the last": from the end of the last fault
until a message arrived that set out after it; {PROBE:.0f} s were waited. "errors": logged, or taken
by nobody, in both processes."""


def markdown(trials: Sequence[Trial]) -> str:
    """A row for each contender and kind of message."""
    rows = [_cells(trial, kind) for trial in trials for kind in trial.kinds]
    widths = [max(map(len, column)) for column in zip(HEAD, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if at < TEXT_COLUMNS else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = "|".join(
        "-" * (width + 2) if at < TEXT_COLUMNS else "-" * (width + 1) + ":"
        for at, width in enumerate(widths)
    )
    return "\n".join([line(HEAD), f"|{rule}|", *map(line, rows)])


def _cells(trial: Trial, kind: str) -> list[str]:
    counts = trial.kinds[kind]
    said = counts.outcomes
    not_sent, unheard = said.get(NOT_SENT, 0), said.get(UNHEARD, 0)
    unknown = said.get(UNKNOWN, 0) + said.get(UNANSWERED, 0)
    numbers = (
        *(counts.calls, not_sent, unheard, unknown, counts.delivered),
        *(counts.twice, counts.disordered, counts.lost, counts.reported, counts.silent),
    )
    deaf = f"over {PROBE:.0f} s" if trial.deaf is None else f"{trial.deaf:.2f} s"
    return [
        trial.contender,
        kind,
        *[f"{number:,}" for number in numbers],
        f"{trial.slowest:.2f} s",
        f"{trial.silence:.2f} s",
        deaf,
        f"{sum(trial.troubles.values()):,}",
    ]


def remarks(trials: Sequence[Trial]) -> list[str]:
    """What the columns do not say: a line for each contender that has something."""
    return [f"{trial.contender}: {'; '.join(said)}" for trial in trials if (said := _said(trial))]


def _said(trial: Trial) -> list[str]:
    calm = {kind: counts.lost for kind, counts in trial.calm.items() if counts.lost}
    return [
        *([f"made {trial.pace:.0%} of its calls in time"] if trial.pace < FULL_PACE else []),
        *([] if trial.settled else ["messages still arrived at the end: not all lost are lost"]),
        *[f"{lost:,} of {kind} lost before the first fault" for kind, lost in calm.items()],
        *_contradictions(trial.kinds),
        *[f"{times:,} × {what}" for what, times in trial.notices.items()],
        *[f"{times:,} × raised {what}" for what, times in trial.raised.items()],
        *[f"{times:,} × {what}" for what, times in trial.troubles.items()],
    ]


def _contradictions(kinds: dict[str, Counts]) -> list[str]:
    said = []
    for kind, counts in kinds.items():
        if counts.contrary:
            said.append(f"{counts.contrary:,} of {kind} arrived and were said not to be sent")
        if counts.excess:
            said.append(f"{counts.excess:,} of {kind} reported beyond what was missing")
    return said
