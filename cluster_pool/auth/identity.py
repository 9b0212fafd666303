"""The identity of a client: what authentication found out about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster_pool.core.config import LARGEST
from cluster_pool.core.ids import check_id, check_namespace, check_user, is_token_id, shown
from cluster_pool.core.patterns import matches
from cluster_pool.exceptions import AuthenticationError, InvalidValueError, NotPermittedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A client as authentication knows it, and what it may do.

    Attributes:
        user: the person or account, under the rules of ids, 1 to 250 bytes; None for a guest.
        id: the only connection id that it may have; None: any.
        namespace: its home, where a call or a URL names none.
        namespaces: further namespaces that it may be in, or patterns in which ``*`` stands for any
            text: ``["room:*"]``. If ``namespace`` is None and this, too, nothing is restricted.
        info: what other members see of its connection, if a call names nothing else: any JSON
            value; None for nothing.
        expires: seconds since 1970 from which its connection is closed with 4401; None: never.
        token_id: the name of its token, by which that is revoked, 1 to 256 bytes.
        claims: all that the token says, or what the application keeps.

    Raises:
        InvalidValueError: a value is not allowed.
    """

    user: str | None = None
    id: str | None = None
    namespace: str | None = None
    namespaces: Sequence[str] | None = None
    info: Any = None
    expires: float | None = None
    token_id: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name, check in (("user", check_user), ("id", check_id), ("namespace", check_namespace)):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check(value))
        if self.namespaces is not None:
            object.__setattr__(self, "namespaces", _patterns(self.namespaces))
        if self.token_id is not None and not is_token_id(self.token_id):
            raise InvalidValueError("token_id must be a str of 1 to 256 bytes")  # it may be secret
        if self.expires is not None and not _is_moment(self.expires):
            raise InvalidValueError(
                f"expires must be seconds since 1970, not {shown(self.expires)}"
            )

    def home(self, namespace: str | None) -> str:
        """The home namespace of a connection.

        Args:
            namespace: the one that a call or a URL names, if it names one.

        Raises:
            NotPermittedError: it may not be there.
            InvalidValueError: there is none.
        """
        if namespace is None:
            if self.namespace is None:
                raise InvalidValueError("neither the call nor the identity names a namespace")
            return self.namespace
        if not self.permits(namespace):
            raise NotPermittedError(f"the identity permits no namespace {shown(namespace)}")
        return namespace

    def own_id(self, id: str | None) -> str | None:
        """The id of a connection; None if any will do.

        Args:
            id: the one that a call or a URL names, if it names one.

        Raises:
            NotPermittedError: the identity has another.
        """
        if self.id is None or id is None or id == self.id:
            return self.id if id is None else id
        raise NotPermittedError(f"the identity permits no id {shown(id)}")

    def check_of_user(self, user: str | None) -> None:
        """Raise NotPermittedError if a call names another user; None names none."""
        if user is not None and user != self.user:
            raise NotPermittedError(f"the identity is not that of user {shown(user)}")

    def check_of_time(self, now: float) -> None:
        """Raise AuthenticationError if it has expired by ``now``, in seconds since 1970."""
        if self.expires is not None and self.expires <= now:
            raise AuthenticationError("the identity has expired")

    def permits(self, namespace: str) -> bool:
        """Whether it may be in a namespace."""
        if self.namespace is None and self.namespaces is None:
            return True
        if namespace == self.namespace:
            return True
        return any(matches(pattern, namespace) for pattern in self.namespaces or ())


def _patterns(value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidValueError(f"namespaces must be a list of str, not {shown(value)}")
    return tuple(check_namespace(pattern) for pattern in value)


def _is_moment(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return -LARGEST <= value <= LARGEST
