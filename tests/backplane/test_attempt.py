"""How far an attempt has come."""

from cluster_pool.backplane.attempt import Attempt


def test_an_attempt_is_up_once_it_has_heard_itself() -> None:
    """Being let in is not enough; what was wanted of one attempt is not wanted of the next."""
    attempt = Attempt()
    attempt.reached = True
    assert not attempt.up
    attempt.up_since = 5.0
    assert attempt.up
    attempt.unwanted.set()
    assert not Attempt().unwanted.is_set()
