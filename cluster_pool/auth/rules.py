"""Namespaces that clients of ``serve`` may ask for: those of their identities, and by rules."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cluster_pool.auth.auth import Auth
from cluster_pool.auth.identity import Identity
from cluster_pool.core.ids import check_namespace, shown
from cluster_pool.core.request import Request
from cluster_pool.exceptions import InvalidValueError

JOIN: Final = "join"


def patterns_of(rules: Sequence[str]) -> tuple[str, ...]:
    """The patterns of rules ``PATTERN=join``.

    Raises:
        InvalidValueError: one of them has another form.
    """
    patterns = []
    for rule in rules:
        pattern, separator, verb = rule.rpartition("=")
        if not separator or verb != JOIN:
            raise InvalidValueError(f"a namespace rule must be PATTERN=join, not {shown(rule)}")
        patterns.append(check_namespace(pattern))
    return tuple(patterns)


def with_rules(auth: Auth, rules: Sequence[str]) -> Auth:
    """An ``auth`` whose identities permit what they name and what the rules name, and no more.

    Without this an identity that names no namespace is not restricted, since an application
    decides; a URL decides nothing.
    """
    patterns = patterns_of(rules)

    async def authenticate(request: Request) -> Identity:
        identity = await auth.identify(request)
        return replace(identity, namespaces=(*(identity.namespaces or ()), *patterns))

    return Auth(
        authenticate=authenticate,
        origins=auth.origins,
        timeout=auth.timeout,
        max_token_age=auth.max_token_age,
    )
