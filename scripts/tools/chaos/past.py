"""The namespaces with a history, their members, and the rules by which it is kept for these.

There are three kinds of them: what is sent to a member alone is kept for the next one of its id, or
for nobody, or, where members have users, for connections of the same user. Of each kind one
namespace is dense, and the others have one member or two.
"""

from dataclasses import replace

from cluster_pool import History

ANYBODY, NOBODY, USERS = KINDS = ("anybody-", "nobody-", "users-")
"""The prefixes of the kinds, by who may get what was sent to a member while it was away."""
SECONDS = 120.0
"""How far the histories reach back: longer than anybody is away."""
_HISTORY = History(messages=50_000, seconds=SECONDS, bytes=256 * 1024 * 1024)
HISTORIES = {
    f"{kind}*": replace(_HISTORY, replay_targeted_without_user=kind == ANYBODY) for kind in KINDS
}
"""For the pools of all nodes."""
USER, ID = "X-User", "id"
"""The header that names the user of a client, and the parameter that names its id."""
VERDICT = "recovered"
"""The first word of what a node tells a client about its past."""

DENSE_IDS, SPARSE_IDS = 6, 2


def names(count: int) -> list[str]:
    """So many namespaces."""
    return [f"{KINDS[at % len(KINDS)]}{at // len(KINDS)}" for at in range(count)]


def has_past(namespace: str) -> bool:
    """Whether it is one of them."""
    return namespace.startswith(KINDS)


def ids(namespace: str) -> list[str]:
    """Its members."""
    number = int(namespace.rpartition("-")[2])
    count = 1 + number % SPARSE_IDS if number else DENSE_IDS
    return [f"{namespace}-{at + 1}" for at in range(count)]


def has_users(namespace: str) -> bool:
    """Whether its members come with a user."""
    return namespace.startswith(USERS)


def keeps_targeted(namespace: str) -> bool:
    """Whether a member gets what was sent to it alone while it was away."""
    return not namespace.startswith(NOBODY)


def users(id: str) -> list[str]:
    """The users who may have an id, one after another."""
    return [f"{id}-{name}" for name in ("a", "b")]
