"""Keys and tokens of these tests."""

import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

SECRET = "a secret of at least thirty-two bytes"


def pem_of(private: Any) -> bytes:
    """The public key of a private one, in PEM."""
    pem: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def algorithm_name(private: Any) -> str:
    """The algorithm that a private key signs by."""
    kinds = {"RSA": "RS256", "EC": "ES256", "EllipticCurve": "ES256", "Ed25519": "EdDSA"}
    return next(name for kind, name in kinds.items() if type(private).__name__.startswith(kind))


def jwk_of(private: Any, **more: str) -> dict[str, Any]:
    """The public key of a private one, as a JWK."""
    kind = type(get_default_algorithms()[algorithm_name(private)])
    entry = kind.to_jwk(private.public_key())
    return {**(json.loads(entry) if isinstance(entry, str) else entry), **more}


def token(
    key: Any = SECRET, algorithm: str = "HS256", *, kid: str | None = None, **claims: Any
) -> str:
    """A token that is valid for a minute unless the claims say otherwise."""
    claims = {"sub": "42", "exp": int(time.time()) + 60, **claims}
    headers = None if kid is None else {"kid": kid}
    return jwt.encode(
        {name: value for name, value in claims.items() if value is not None},
        key,
        algorithm,
        headers=headers,
    )
