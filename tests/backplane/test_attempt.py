"""The progress of an attempt."""

from cluster_pool.backplane.attempt import Attempt


def test_an_attempt_is_up_once_it_has_heard_itself() -> None:
    """A login is not enough; a request to end one attempt does not end the next."""
    attempt = Attempt()
    attempt.reached = True
    assert not attempt.up
    attempt.up_since = 5.0
    assert attempt.up
    attempt.unwanted.set()
    assert not Attempt().unwanted.is_set()
