"""Errors of Redis: quoted in full, without secrets, and with advice."""

import pytest
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from cluster_pool import BackplaneUnavailableError
from cluster_pool.backplane.refusals import (
    advice,
    is_refusal,
    misplaced,
    needs_another,
    refusal,
    said,
)

SCRIPT = " script: 6b1bf486c81ceb7edf3c093f4a48582e38c0e791, on @user_script:12."

SAID = [
    (ResponseError("OOM command not allowed"), "OOM command not allowed"),
    (ReadOnlyError("You can't write"), "READONLY You can't write"),
    (ReadOnlyError("READONLY You can't write"), "READONLY You can't write"),
    (OutOfMemoryError("command not allowed"), "OOM command not allowed"),
    (NoPermissionError("this user has no permissions"), "NOPERM this user has no permissions"),
    (ClusterDownError("The cluster is down"), "CLUSTERDOWN The cluster is down"),
    (
        AuthenticationError("invalid username-password pair or user is disabled."),
        "WRONGPASS invalid username-password pair or user is disabled.",
    ),
    (ResponseError(f"MISCONF Errors writing{SCRIPT}"), "MISCONF Errors writing"),
    (
        ResponseError("unknown command 'AUTH', with args beginning with: 'me' 's3cret' "),
        "unknown command 'AUTH'",
    ),
    (ConnectionError(), "ConnectionError"),
    (OSError("no route"), "no route"),
]


@pytest.mark.parametrize(("error", "text"), SAID, ids=[text for _, text in SAID])
def test_an_error_of_redis_is_quoted_in_full_without_secrets(error: Exception, text: str) -> None:
    """With its first word, which redis-py cuts off; without arguments and places in our scripts."""
    assert said(error) == text


ADVICE = [
    ("OOM command not allowed", "maxmemory"),
    ("READONLY You can't write against a read only replica.", "address of its primary"),
    ("MASTERDOWN Link with MASTER is down", "address of its primary"),
    ("NOPERM this user has no permissions", "deploy/redis.acl"),
    ("ERR ACL failure in script: User", "deploy/redis.acl"),
    ("WRONGPASS invalid username-password pair", "check the user name"),
    ("ERR invalid password", "check the user name"),
    ("MOVED 3999 127.0.0.1:6381", "Redis Cluster"),
    ("ERR Script attempted to access a non local key in a cluster node", "Redis Cluster"),
    ("LOADING Redis is loading the dataset in memory", "it reads its data set"),
    ("ERR max number of clients reached", "maxclients"),
    ("ERR DB index is out of range", "0 is always there"),
]


@pytest.mark.parametrize(("text", "what"), ADVICE, ids=[text for text, _ in ADVICE])
def test_a_known_error_comes_with_advice(text: str, what: str) -> None:
    """The advice follows Redis's words, from an error as well as from a script's reply."""
    assert what in advice(text)
    for reply in (ResponseError(text), b"-" + text.encode(), text.encode()):
        assert refusal(reply).startswith(f"Redis refused: {text} (")
        assert what in refusal(reply)


def test_an_unknown_error_comes_without_advice() -> None:
    """A wrong advice is worse than none; a word in the middle of a text is no code."""
    assert refusal(b"ERR syntax error") == "Redis refused: ERR syntax error"
    assert refusal(b"ERR OOM") == "Redis refused: ERR OOM"
    assert refusal(f"-ERR \udcff{SCRIPT}".encode(errors="surrogateescape")) == (
        "Redis refused: ERR \ufffd"
    )


def test_a_refusal_of_redis_is_told_from_a_fault_of_the_network() -> None:
    """By the error that it was translated from."""
    for cause, refused in ((ResponseError("no"), True), (OSError("no"), False), (None, False)):
        error = BackplaneUnavailableError("no")
        error.__cause__ = cause
        assert is_refusal(error) is refused


@pytest.mark.parametrize(
    ("error", "another"),
    [
        (ReadOnlyError("You can't write against a read only replica."), True),
        (MovedError("3999 127.0.0.1:6381"), True),
        (OutOfMemoryError("command not allowed"), False),
        (ResponseError("ERR anything"), False),
    ],
)
def test_a_replica_and_a_cluster_node_say_that_another_redis_must_be_asked(
    error: ResponseError, another: bool
) -> None:
    """Any other error needs a change at this Redis."""
    assert needs_another(said(error)) is another
    assert needs_another(refusal(error)) is another


def test_another_kind_of_server_than_the_address_names_is_refused() -> None:
    """HELLO tells a server's mode, which must be the address's kind."""
    assert "redis+cluster://" in misplaced("cluster", clustered=False)
    assert "no Redis Cluster" in misplaced("standalone", clustered=True)
    assert misplaced("standalone", clustered=False) == misplaced("cluster", clustered=True) == ""
    for clustered in (False, True):
        assert "this is a Sentinel" in misplaced("sentinel", clustered=clustered)
