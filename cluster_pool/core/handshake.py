"""Checks of a handshake, before a claim is made for it. Pure."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from cluster_pool.core.ids import shown
from cluster_pool.core.request import Request
from cluster_pool.exceptions import InvalidValueError

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_SPACE: Final = r"[ \t]*+"
_VALUE: Final = rf'(?:{_TOKEN}|"(?:[^"\\]|\\.)*+")'
_OPTION: Final = rf"{_TOKEN}{_SPACE}(?:={_SPACE}{_VALUE}{_SPACE})?"
_EXTENSION: Final = rf"{_TOKEN}{_SPACE}(?:;{_SPACE}{_OPTION})*"


def _list_of(item: str) -> re.Pattern[str]:
    """One item at least, with commas in between, or more of them (RFC 9110 section 5.6.1)."""
    return re.compile(rf"(?:{_SPACE},)*+{_SPACE}{item}{_SPACE}(?:,{_SPACE}(?:{item}{_SPACE})?)*+")


_FORMS: Final = {
    "Sec-WebSocket-Extensions": _list_of(_EXTENSION),
    "Sec-WebSocket-Protocol": _list_of(_TOKEN),
}
_WHOLE_TOKEN: Final = re.compile(_TOKEN)


def check_offers(request: Request, answered: str | None) -> None:
    """Check the extensions and subprotocols that a client offers, before the answer.

    Some servers call the application first, and read these headers only after it has accepted.

    Args:
        answered: the subprotocol of the answer.

    Raises:
        InvalidValueError: the offers cannot be read, or a client that has not offered the answer
            would refuse it (RFC 6455 sections 4.1 and 9.1).
    """
    check_forms(request.headers.get_all)
    if answered is not None and answered not in request.subprotocols:
        raise InvalidValueError(f"the client does not offer the subprotocol {shown(answered)}")


def check_forms(values_of: Callable[[str], Iterable[str]]) -> None:
    """Raise InvalidValueError if offers cannot be read, without their text: it may have a token.

    Args:
        values_of: gives every value of a header.
    """
    for name, form in _FORMS.items():
        for value in values_of(name):
            if form.fullmatch(value) is None:
                raise InvalidValueError(f"the header {name} cannot be read")


def check_subprotocols(names: Sequence[str]) -> tuple[str, ...]:
    """Return ``names`` if each may name a subprotocol, else raise InvalidValueError."""
    for name in names:
        if not isinstance(name, str) or _WHOLE_TOKEN.fullmatch(name) is None:
            raise InvalidValueError(f"no name of a subprotocol: {shown(name)}")
    return tuple(names)
