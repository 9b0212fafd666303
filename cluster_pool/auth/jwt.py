"""JSON Web Tokens as credentials, by PyJWT (the extra ``cluster-pool[jwt]``)."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cluster_pool.auth.identity import Identity
from cluster_pool.auth.keys import Key, KeySet, KeySource, PublishedKeys, of_pem, of_secret
from cluster_pool.auth.tokens import find_token
from cluster_pool.core.ids import is_token_id
from cluster_pool.core.request import Request
from cluster_pool.exceptions import AuthenticationError, InvalidValueError

MAX_TOKEN: Final = 8192
"""Characters of a token; longer ones are refused unread."""
LEEWAY: Final = 10.0

MakeIdentity = Callable[[Mapping[str, Any]], Identity | None]


class Jwt:
    """Authenticates clients by JSON Web Tokens (RFC 7519): ``Jwt(jwks="https://…/jwks.json")``.

    A token must be signed by HS256, RS256, ES256 or EdDSA; the key decides by which of them, never
    the token (RFC 8725 section 3.1). It must have ``exp``. ``nbf``, ``aud`` and ``iss`` are checked
    where the token or these arguments have them; a token with ``aud`` needs ``audience``.

    The token comes from the header ``Authorization: Bearer``, or from a subprotocol
    ``cluster-pool.token.TOKEN`` that a browser offers beside ``cluster-pool.raw``, from a cookie or
    from the query.

    Args:
        secret: of HS256, 32 bytes or more.
        key: a public key or a certificate in PEM, or the path of a file with one: RSA of 2,048 bits
            or more, P-256 or Ed25519.
        jwks: the path or the URL (``https://``; ``http://`` to loopback alone) of a JWK set (RFC
            7517). It is read at the first token, again after five minutes, and when a token names
            an unknown key, then at most every ten seconds. If it cannot be read, the last one
            stays valid.
        audience, issuer: what ``aud`` and ``iss`` must be; None: a token with ``aud`` is refused,
            and ``iss`` is not checked.
        leeway: seconds by which clocks may differ; an identity expires so much later than its
            token.
        cookie: the name of the cookie that may hold a token; None: none.
        parameter: the name of the query's parameter that may hold one; None: none. Servers log
            queries: uvicorn's access log does.
        identity: makes the identity of the claims; the default takes ``user`` from ``sub``, and
            ``id``, ``namespace`` and ``namespaces`` from claims of these names. ``expires`` and
            ``token_id`` (from ``jti``, if that has 1 to 256 bytes, else the token's SHA-256 in hex)
            are filled in afterwards.

    Raises:
        InvalidValueError: not one of ``secret``, ``key`` and ``jwks`` is given, or it is unfit.
        ModuleNotFoundError: PyJWT is not installed.
    """

    def __init__(
        self,
        *,
        secret: str | bytes | None = None,
        key: str | bytes | Path | None = None,
        jwks: str | Path | None = None,
        audience: str | Sequence[str] | None = None,
        issuer: str | None = None,
        leeway: float = LEEWAY,
        cookie: str | None = None,
        parameter: str | None = "token",
        identity: MakeIdentity | None = None,
    ) -> None:
        import jwt

        self._jwt = jwt
        self._keys = _source(secret, key, jwks)
        self._audience = audience
        self._issuer = issuer
        self._leeway = leeway
        self._cookie = cookie
        self._parameter = parameter
        self._identity = identity_of if identity is None else identity

    async def __call__(self, request: Request) -> Identity | None:
        """The identity that a request's token gives; None if it has no token.

        Raises:
            AuthenticationError: the token is not valid; the text says why, without the token.
        """
        token = find_token(request, self._cookie, self._parameter)
        return None if token is None else await self.verify(token)

    async def verify(self, token: str) -> Identity | None:
        """The identity that a token gives; None if ``identity`` knows none for its claims.

        Raises:
            AuthenticationError: as above.
        """
        if len(token) > MAX_TOKEN:
            raise AuthenticationError(f"a token has at most {MAX_TOKEN} characters")
        header = self._read(self._jwt.get_unverified_header, token)
        if "crit" in header or "b64" in header:
            raise AuthenticationError("the token has critical headers, which are not supported")
        named = header.get("kid")
        algorithm = header.get("alg")
        keys = await self._keys.find(named if isinstance(named, str) else None)
        fitting = [one for one in keys if one.algorithm == algorithm]
        if not fitting:
            raise AuthenticationError("no key fits the token")
        claims = self._read(self._claims, token, fitting)
        try:
            found = self._identity(claims)
            return None if found is None else self._completed(found, token, claims)
        except (InvalidValueError, OverflowError) as error:
            raise AuthenticationError(f"the claims cannot be used: {error}") from error

    def _claims(self, token: str, keys: Sequence[Key]) -> dict[str, Any]:
        """The claims of a token that one of the keys has signed."""
        wrong: Exception | None = None
        for key in keys:
            try:
                return self._decode(token, key)
            except self._jwt.InvalidSignatureError as error:
                wrong = error
        assert wrong is not None
        raise wrong

    def _decode(self, token: str, key: Key) -> dict[str, Any]:
        claims: dict[str, Any] = self._jwt.decode(
            token,
            key.material,
            algorithms=[key.algorithm],
            audience=self._audience,
            issuer=self._issuer,
            leeway=self._leeway,
            options={"require": ["exp"]},
        )
        return claims

    def _completed(self, identity: Identity, token: str, claims: Mapping[str, Any]) -> Identity:
        """An identity with what every token has, where its maker has not said otherwise."""
        expires, token_id = identity.expires, identity.token_id
        if expires is None:
            expires = int(claims["exp"]) + self._leeway
        if token_id is None:
            named = claims.get("jti")
            token_id = named if is_token_id(named) else hashlib.sha256(token.encode()).hexdigest()
        return replace(identity, expires=expires, token_id=token_id)

    def _read(self, work: Callable[..., dict[str, Any]], token: str, *more: Any) -> dict[str, Any]:
        """``work(token, *more)``; strangers write tokens, so any error means a bad one."""
        try:
            return work(token, *more)
        except self._jwt.PyJWTError as error:
            raise AuthenticationError(f"the token is not valid: {_reason(error)}") from error
        except Exception as error:
            raise AuthenticationError("the token cannot be read") from error


def identity_of(claims: Mapping[str, Any]) -> Identity:
    """The identity of a token's claims, by their usual names."""
    return Identity(
        user=claims.get("sub"),
        id=claims.get("id"),
        namespace=claims.get("namespace"),
        namespaces=claims.get("namespaces"),
        claims=claims,
    )


def _source(
    secret: str | bytes | None, key: str | bytes | Path | None, jwks: str | Path | None
) -> KeySource:
    """The keys of one of three arguments."""
    if (secret is not None) + (key is not None) + (jwks is not None) != 1:
        raise InvalidValueError("Jwt needs one of secret, key and jwks")
    if secret is not None:
        return KeySet([of_secret(secret)])
    if key is not None:
        return KeySet([of_pem(key)])
    return PublishedKeys(jwks)


_REASONS: Final = {
    "ExpiredSignatureError": "it has expired",
    "ImmatureSignatureError": "it is not valid yet",
    "InvalidAudienceError": "it is for another audience",
    "InvalidIssuerError": "it is of another issuer",
    "InvalidSignatureError": "its signature is wrong",
    "MissingRequiredClaimError": "a claim is missing",
}


def _reason(error: Exception) -> str:
    return _REASONS.get(type(error).__name__, "it cannot be read")
