"""Close codes and reasons that a close frame may carry."""

import pytest

from cluster_pool import InvalidCloseError
from cluster_pool.core.closing import check_close
from tests.core.odd import Code, Odd


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 4999])
def test_close_codes_that_may_be_sent(code: int) -> None:
    """IANA's registry and the ranges for libraries and applications."""
    assert check_close(code, "ü" * 61) == (code, "ü" * 61)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, "1000", True])
def test_close_codes_that_may_not(code: object) -> None:
    """Reserved ones, and values that are not an int."""
    with pytest.raises(InvalidCloseError):
        check_close(code, "")


def test_a_close_code_too_large_to_print_is_refused() -> None:
    """The error is ours all the same."""
    with pytest.raises(InvalidCloseError, match="huge int"):
        check_close(10**5000, "")


def test_a_checked_code_and_reason_are_exact() -> None:
    """The values on the wire are plain ones, of exact types."""
    code, reason = check_close(Code.GONE, Odd.NAME)
    assert (type(code), type(reason)) == (int, str)
    assert (code, reason) == (4000, "name")
