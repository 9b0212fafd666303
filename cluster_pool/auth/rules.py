"""Rules for all clients of ``serve``: what they may ask for in which namespaces.

An identity names namespaces, too. What a client may join is what either of them permits.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cluster_pool.auth.auth import Auth
from cluster_pool.auth.identity import Identity
from cluster_pool.core.ids import check_namespace, shown
from cluster_pool.core.patterns import matches
from cluster_pool.core.request import Request
from cluster_pool.exceptions import InvalidValueError

JOIN: Final = "join"
PUBLISH: Final = "publish"
INFO: Final = "info"
REWIND: Final = "rewind"
VERBS: Final = (JOIN, PUBLISH, INFO, REWIND)


class NamespaceRules:
    """Rules ``PATTERN=VERB,VERB…``, with the verbs ``join``, ``publish``, ``info`` and ``rewind``.

    Args:
        rules: in a pattern ``*`` stands for any text. A namespace may match several.

    Raises:
        InvalidValueError: one of them has another form.
    """

    def __init__(self, rules: Sequence[str]) -> None:
        self._patterns: dict[str, list[str]] = {verb: [] for verb in VERBS}
        for rule in rules:
            pattern, _, verbs = rule.rpartition("=")
            for verb in verbs.split(","):
                if verb not in VERBS or not pattern:
                    raise InvalidValueError(
                        "a namespace rule must be PATTERN=VERBS, with one or more of "
                        f"{', '.join(VERBS)}, not {shown(rule)}"
                    )
                self._patterns[verb].append(check_namespace(pattern))

    def patterns(self, verb: str) -> tuple[str, ...]:
        """The patterns of the namespaces in which a verb is permitted."""
        return tuple(self._patterns[verb])

    def permit(self, verb: str, namespace: str) -> bool:
        """Whether clients may do this in a namespace."""
        return any(matches(pattern, namespace) for pattern in self._patterns[verb])


def with_rules(auth: Auth | None, rules: NamespaceRules) -> Auth | None:
    """An ``auth`` whose identities permit what they name and what the rules name, and no more.

    Without this an identity that names no namespace is not restricted, since an application
    decides; a URL decides nothing. Without an ``auth`` there is none.
    """
    if auth is None:
        return None
    patterns = rules.patterns(JOIN)

    async def authenticate(request: Request) -> Identity:
        identity = await auth.identify(request)
        return replace(identity, namespaces=(*(identity.namespaces or ()), *patterns))

    return Auth(
        authenticate=authenticate,
        origins=auth.origins,
        timeout=auth.timeout,
        max_token_age=auth.max_token_age,
    )
