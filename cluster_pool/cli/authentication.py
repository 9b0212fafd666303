"""The options of ``serve`` by which clients are authenticated, as an :class:`Auth`."""

from pathlib import Path

from cluster_pool.auth.auth import Auth
from cluster_pool.auth.jwt import Jwt
from cluster_pool.cli.attributes import load
from cluster_pool.exceptions import InvalidValueError


def chosen(
    jwt_key: str | None,
    jwks: str | None,
    audience: str | None,
    issuer: str | None,
    name: str | None,
) -> Auth | None:
    """The rule that the options name; None if they name none.

    Raises:
        InvalidValueError: they name more than one, or what they name cannot be used.
    """
    if sum(one is not None for one in (jwt_key, jwks, name)) > 1:
        raise InvalidValueError("give one of --jwt-key, --jwks and --auth")
    if name is not None:
        found = load("--auth", name)
        if not isinstance(found, Auth) and not callable(found):
            raise InvalidValueError(f"--auth {name}: must be an Auth, or a function of a Request")
        return found if isinstance(found, Auth) else Auth(authenticate=found)
    if jwt_key is None and jwks is None:
        if audience is not None or issuer is not None:
            raise InvalidValueError("--jwt-audience and --jwt-issuer need --jwt-key or --jwks")
        return None
    try:
        return Auth(authenticate=_jwt(jwt_key, jwks, audience, issuer))
    except ModuleNotFoundError as error:
        raise InvalidValueError(f"tokens need the extra cluster-pool[jwt]: {error}") from None


def _jwt(jwt_key: str | None, jwks: str | None, audience: str | None, issuer: str | None) -> Jwt:
    if jwt_key is None:
        return Jwt(jwks=jwks, audience=audience, issuer=issuer)
    try:
        data = Path(jwt_key).read_bytes()
    except (OSError, ValueError) as error:
        raise InvalidValueError(f"--jwt-key cannot be read: {error}") from None
    if b"-----BEGIN" in data:
        return Jwt(key=data, audience=audience, issuer=issuer)
    secret = data.removesuffix(b"\n").removesuffix(b"\r")  # other white space may be random bytes
    return Jwt(secret=secret, audience=audience, issuer=issuer)
