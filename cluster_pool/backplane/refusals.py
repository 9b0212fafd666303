"""Error replies of Redis and faults of sockets: their full text, and advice what to do. Pure.

Translates foreign errors into ours.
"""

import re
from typing import Final

from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from cluster_pool.backplane.tls import explained, unplaced
from cluster_pool.exceptions import BackplaneUnavailableError

FAULTS: Final = (RedisError, OSError, EOFError, RuntimeError)
"""Errors of redis-py and of sockets when a connection fails. uvloop raises RuntimeError for a write
to a socket that has just been reset."""

_REPLICA: Final = (
    "this is a replica: give the address of its primary, or redis+sentinel://HOST:PORT/SERVICE"
)
_CLUSTER: Final = "this is a node of a Redis Cluster: give it as redis+cluster://HOST:PORT"
_OTHER: Final = (
    "another node of this Redis Cluster has the slot, or gets it: give the cluster as "
    "redis+cluster://HOST:PORT, which follows its slots"
)
_HALF: Final = (
    "the slot is half-way to another node of this Redis Cluster, and the keys are not together: "
    "redis-cli --cluster fix ends a move that was broken off. A cluster is given as "
    "redis+cluster://HOST:PORT, which follows its slots"
)
_NO_CLUSTER: Final = "this is no Redis Cluster: give it as redis://HOST:PORT"
_DOWN: Final = (
    "a part of the Redis Cluster has no primary at the moment: it comes back with a replica's "
    "promotion; one that must serve the rest meanwhile has cluster-require-full-coverage no"
)
_SENTINEL: Final = "this is a Sentinel: give it as redis+sentinel://HOST:PORT/SERVICE"
_RIGHTS: Final = "this user may not do what cluster_pool needs: deploy/redis.acl has the rights"
_MAP: Final = (
    "give it as redis://HOST:PORT if it is no Redis Cluster; on one this user needs +cluster|slots "
    "as in deploy/redis-cluster.acl"
)
_OLD: Final = (
    "it does not have this command, or under another name: cluster_pool needs Redis 6.2 or later, "
    "for a cluster 7.0 or later, or Valkey, and no rename-command"
)
_LOGIN: Final = "check the user name and the password"

_ADVICE: Final = {
    "OOM": "its memory is full: raise maxmemory, or find out whose keys fill it",
    "MISCONF": "it cannot save to its disk and takes no writes: look into its log and at its disk",
    "READONLY": _REPLICA,
    "MASTERDOWN": _REPLICA,
    "NOREPLICAS": "too few replicas follow it (min-replicas-to-write): bring them back",
    "NOPERM": _RIGHTS,
    "NOAUTH": _LOGIN,
    "WRONGPASS": _LOGIN,
    "MOVED": _OTHER,
    "ASK": _HALF,
    "TRYAGAIN": _HALF,
    "CROSSSLOT": _CLUSTER,
    "CLUSTERDOWN": _DOWN,
    "LOADING": "it reads its data set and will be there when it has",
    "BUSY": "a script of somebody runs there without end: SCRIPT KILL ends it",
}
_PHRASES: Final = {
    "ACL failure in script": _RIGHTS,
    "can't run this command": _RIGHTS,
    "can't access at least one of the": _RIGHTS,
    "no permissions to": _RIGHTS,
    "non local key in a cluster node": _HALF,
    "max number of clients reached": "raise maxclients, or find out who holds connections",
    "invalid password": _LOGIN,
    "without any password configured": _LOGIN,
    "unknown command": _OLD,
    "Unknown subcommand": _OLD,
    "cluster support disabled": _NO_CLUSTER,
    "DB index is out of range": "give a database that it has; 0 is always there",
}
_CODES: Final[dict[type[RedisError], str]] = {
    MasterDownError: "MASTERDOWN",
    ClusterDownError: "CLUSTERDOWN",
    MovedError: "MOVED",
    AskError: "ASK",
    TryAgainError: "TRYAGAIN",
    ClusterCrossSlotError: "CROSSSLOT",
    NoPermissionError: "NOPERM",
    NoScriptError: "NOSCRIPT",
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
}
"""The first words that a redis-py without ``status_code`` cuts off, by the class of the error."""
_ELSEWHERE: Final = (AskError, ClusterDownError, MovedError, TryAgainError)
_OURS: Final = re.compile(r" script: (?:[0-9a-f]{40}, )?on @user_script: ?\d+\.?$")
_ARGUMENTS: Final = re.compile(r",? with args beginning with: .*", re.DOTALL)


def said(error: BaseException) -> str:
    """The text of an error; of an error reply of Redis the full text with its first word.

    redis-py cuts that word off (``OOM``, ``MOVED``). The arguments of an unknown command are left
    out, since one of them may be a password, and so is the line of our script.
    """
    text = str(error) or type(error).__name__
    if isinstance(error, RedisError):
        code = getattr(error, "status_code", None) or _CODES.get(type(error), "")
        if text.startswith("invalid username-password pair"):
            code = "WRONGPASS"
        if code and text.partition(" ")[0] != code:
            text = f"{code} {text}"
    return _ARGUMENTS.sub("", _OURS.sub("", text))


def advice(text: str) -> str:
    """The advice for an error reply; "" when there is none."""
    if "'cluster|slots' command" in text:
        return _MAP
    known = _ADVICE.get(text.partition(" ")[0], "")
    return known or next((what for phrase, what in _PHRASES.items() if phrase in text), "")


def with_advice(text: str) -> str:
    """The text, followed by the advice for it if there is any."""
    what = advice(text)
    return f"{text} ({what})" if what else text


def unavailable(what: str, error: BaseException, hint: str = "") -> BackplaneUnavailableError:
    """The error to raise for one of :data:`FAULTS`.

    Args:
        what: says what failed.
        hint: advice for an error that has none of its own.
    """
    text = unplaced(said(error))
    hint = advice(text) or explained(error) or hint
    return BackplaneUnavailableError(f"{what}: {text}" + (hint and f" ({hint})"))


def refusal(reply: BaseException | bytes) -> str:
    """One sentence: that Redis refused, its full reply, and the advice."""
    if isinstance(reply, bytes):
        text = _ARGUMENTS.sub("", _OURS.sub("", reply.decode(errors="replace").removeprefix("-")))
    else:
        text = said(reply)
    return f"Redis refused: {with_advice(text)}"


def is_refusal(error: BaseException) -> bool:
    """Whether a translated error was caused by an error reply: Redis was there and refused."""
    return isinstance(error.__cause__, ResponseError)


def is_unknown(error: BaseException) -> bool:
    """Whether a server does not have a command."""
    return advice(said(error)) == _OLD


def misplaced(mode: str, *, clustered: bool) -> str:
    """The reason why no node can use a Redis in this mode (of its HELLO); "" when it can.

    Args:
        clustered: whether it was given as a Redis Cluster.
    """
    if clustered:
        return {"standalone": _NO_CLUSTER, "sentinel": _SENTINEL}.get(mode, "")
    return {"cluster": _CLUSTER, "sentinel": _SENTINEL}.get(mode, "")


def is_elsewhere(error: BaseException) -> bool:
    """Whether Redis executed nothing, since the slot of the keys is, or may be, at another Redis.

    MOVED, ASK, TRYAGAIN and CLUSTERDOWN, also as the cause of a translated error.
    """
    return isinstance(error, _ELSEWHERE) or isinstance(error.__cause__, _ELSEWHERE)


def is_half_moved(error: BaseException) -> bool:
    """Whether a translated error says that the slot is on its way to another Redis."""
    return isinstance(error.__cause__, AskError | TryAgainError)


def needs_another(text: str) -> bool:
    """Whether a refusal means that another Redis must be asked; connecting again may find it."""
    what = advice(text.removeprefix("Redis refused: ").partition(" (")[0])
    return what in (_REPLICA, _CLUSTER, _OTHER, _HALF)
