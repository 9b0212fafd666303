"""The connections of one id in a namespace with a history, and what each of them has heard."""

import math
from collections.abc import Iterator

from tools.chaos.books import SOON, Call, Connection

Message = tuple[str, int]
"""Sender and number."""


class Leg:
    """One connection of an id, in all rounds.

    Attributes:
        about: what is known of it; of what it heard, the messages of this round.
        heard: all that it heard.
        last: the number last heard of each sender, of broadcasts and of targeted messages.
        judged: whether its verdict is counted.
    """

    def __init__(self, about: Connection) -> None:
        self.about = about
        self.heard: set[Message] = set()
        self.last: dict[tuple[str, bool], int] = {}
        self.judged = False

    def __str__(self) -> str:
        one = self.about
        user = f" as {one.user}" if one.user else ""
        end = "open" if one.closed is None else f"closed with {one.code} after {self.lasted:.1f} s"
        return f"{one}{user} ({one.recovered or 'untold'}, {end})"

    @property
    def lasted(self) -> float:
        """Seconds for which its client had it open; endless if it still has."""
        return (math.inf if self.about.closed is None else self.about.closed) - self.about.opened


class Way:
    """An id, with its connections in the order in which they were opened.

    Attributes:
        heard_on: the connection on which each message was heard last.
    """

    def __init__(self) -> None:
        self.legs: list[Leg] = []
        self.heard_on: dict[Message, Leg] = {}

    def take(self, about: Connection) -> None:
        """Another connection, or news of one that is known."""
        for leg in self.legs:
            if leg.about.opened == about.opened:
                leg.about = about
                return
        self.legs.append(Leg(about))
        self.legs.sort(key=lambda leg: leg.about.opened)

    def rest(self) -> None:
        """The round is over: what was heard in it is known."""
        for leg in self.legs:
            leg.about.heard = []

    def holder(self, call: Call) -> Leg | None:
        """The connection that had the id last when a call began; None if there was none yet."""
        before = [leg for leg in self.legs if leg.about.opened < call.begun]
        return before[-1] if before else None

    def had(self, user: str, call: Call) -> bool:
        """Whether a connection of a user had the id, or was asking for it, during a call."""
        return any(
            one.user == user
            and one.began <= call.ended
            and (one.closed is None or one.closed >= call.begun)
            for one in (leg.about for leg in self.legs)
        )

    def before(self, leg: Leg) -> Leg | None:
        """The connection before one."""
        at = self.legs.index(leg)
        return self.legs[at - 1] if at else None

    def after(self, call: Call) -> Iterator[Leg]:
        """The connections that were opened after a call began."""
        return (leg for leg in self.legs if leg.about.opened >= call.begun)

    def story(self, call: Call) -> str:
        """The connections from shortly before a call on, and when it was made, in words."""
        legs = "; ".join(
            f"{leg} wanted at {leg.about.began - call.begun:+.2f} s, open at"
            f" {leg.about.opened - call.begun:+.2f} s, refused by {leg.about.tried}"
            for leg in self.legs
            if leg.about.closed is None or leg.about.closed >= call.begun - SOON
        )
        return f"which took {call.ended - call.begun:.2f} s: {legs}"
