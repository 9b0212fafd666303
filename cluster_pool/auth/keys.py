"""The keys that tokens are verified with: one that is given, or a set that is published."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from cluster_pool.auth.fetching import Fetch
from cluster_pool.core.ids import shown
from cluster_pool.core.loopback import is_loopback
from cluster_pool.core.quiet import Quiet, others
from cluster_pool.exceptions import AuthenticationUnavailableError, InvalidValueError

log = logging.getLogger("cluster_pool.auth")

SECRET_BYTES: Final = 32
"""RFC 7518 section 3.2."""
RSA_BITS: Final = 2048
"""RFC 7518 section 3.3."""
FRESH: Final = 300.0
"""Seconds after which a published set is read again."""
PAUSE: Final = 10.0
"""Seconds between two readings, whatever keys tokens name."""
PATIENCE: Final = 4.0
"""Seconds that a server has for its whole answer."""
STALE: Final = 1.0
"""Seconds that clients wait for a set to be read again, before the last one counts."""
MAX_KEYS: Final = 100


@dataclass(frozen=True, slots=True)
class Key:
    """A key, and the one algorithm that it verifies.

    Attributes:
        material: as PyJWT takes it.
        name: its ``kid``; None if it has none.
    """

    material: Any
    algorithm: str
    name: str | None = None


class KeySource(Protocol):
    """Where keys come from."""

    async def find(self, name: str | None) -> Sequence[Key]:
        """The keys that may have signed a token.

        Args:
            name: the ``kid`` of the token.
        """


class KeySet:
    """Keys that do not change. One without a name may have signed any token."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = keys

    async def find(self, name: str | None) -> Sequence[Key]:
        """See :class:`KeySource`."""
        return [key for key in self._keys if name is None or key.name in (None, name)]


class PublishedKeys:
    """A JWK set in a file or behind a URL, read when it is needed, in a thread.

    Args:
        where: a path, or an ``https://`` URL; ``http://`` to loopback alone.
    """

    def __init__(self, where: str | Path | None) -> None:
        self._where = _checked(where)
        self._keys = KeySet([])
        self._read_at = self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._quiet = Quiet()

    async def find(self, name: str | None) -> Sequence[Key]:
        """See :class:`KeySource`.

        Raises:
            AuthenticationUnavailableError: the set was never read yet, and cannot be read now.
        """
        if time.monotonic() >= self._read_at + FRESH:
            await self._read_again(PATIENCE if self._read_at < 0 else STALE)
        found = await self._keys.find(name)
        if not found:
            await self._read_again(PATIENCE)
            found = await self._keys.find(name)
        if self._read_at < 0:
            raise AuthenticationUnavailableError("the keys of tokens cannot be read")
        return found

    async def _read_again(self, patience: float) -> None:
        """Read the set, unless that was tried lately; wait until a reading is over.

        Args:
            patience: seconds from the beginning of the reading after which nobody waits for it.
        """
        reading = self._reading
        if (
            reading is None
            or reading.done()
            or reading.get_loop() is not asyncio.get_running_loop()
        ):
            now = time.monotonic()
            if now < self._tried_at + PAUSE:
                return
            self._tried_at = now
            reading = self._reading = asyncio.create_task(self._read())
        left = self._tried_at + patience - time.monotonic()
        if left > 0:
            await asyncio.wait((reading,), timeout=left)

    async def _read(self) -> None:
        fetch = Fetch(self._where, PATIENCE)
        late = asyncio.get_running_loop().call_later(PATIENCE, fetch.cut)
        try:
            keys = keys_of(await asyncio.to_thread(fetch.read))
        except Exception as error:
            if times := self._quiet.due("unread", time.monotonic()):
                text = "the keys of tokens cannot be read at %s: %s%s"
                where, why = shown(str(self._where), 300), shown(str(error), 300)
                log.warning(text, where, why, others(times))
        else:
            self._keys, self._read_at = KeySet(keys), time.monotonic()
        finally:
            late.cancel()
            fetch.cut()  # else its thread would hold up the end of the process


def _checked(where: str | Path | None) -> str | Path:
    if isinstance(where, Path):
        return where
    if not isinstance(where, str):
        raise InvalidValueError(f"jwks must be a path or a URL, not {shown(where)}")
    if "://" not in where:
        return Path(where)
    try:
        parts = urlsplit(where)
    except ValueError as error:
        raise InvalidValueError(f"jwks is no URL: {error}") from None
    if "@" in parts.netloc:
        raise InvalidValueError("the URL of a key set cannot have a password: it would be logged")
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        return where
    raise InvalidValueError("the URL of a key set must begin with https://")


def keys_of(data: bytes) -> list[Key]:
    """The keys of a JWK set (RFC 7517 section 5) that sign by one of our algorithms.

    Others are left out, as that section asks.

    Raises:
        ValueError: it is no JWK set, or has too many keys.
    """
    entries = json.loads(data)["keys"]
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError(f"it has no list of at most {MAX_KEYS} keys")
    found = (_of_jwk(entry) for entry in entries if isinstance(entry, dict))
    return [key for key in found if key is not None]


def _of_jwk(entry: dict[str, Any]) -> Key | None:
    import jwt

    if entry.get("use", "sig") != "sig":
        return None
    try:
        material = jwt.PyJWK(entry).key
        algorithm = algorithm_of(material)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, NotImplementedError):
        return None  # PyJWT and cryptography raise all five for entries that they cannot read
    name = entry.get("kid")
    if entry.get("alg", algorithm) != algorithm:
        return None
    return Key(material, algorithm, name if isinstance(name, str) else None)


def of_secret(secret: str | bytes) -> Key:
    """The key of a secret; raises InvalidValueError if it is too short, or a public key."""
    material = secret.encode() if isinstance(secret, str) else secret
    if not isinstance(material, bytes):
        raise InvalidValueError(f"secret must be str or bytes, not {type(secret).__name__}")
    if b"-----BEGIN" in material:
        raise InvalidValueError("this secret is a key in PEM: give it as key=")
    if _is_published(material):
        raise InvalidValueError("this secret is a public key or a JWK: anybody may know it")
    try:
        return Key(material, algorithm_of(material))
    except ValueError as error:
        raise InvalidValueError(str(error)) from None


def _is_published(material: bytes) -> bool:
    """Whether it has the form of a JWK, a JWK set, or a public key of DER or OpenSSH.

    As a secret of HS256 it would let everybody in who knows the public key (RFC 8725 section 2.1).
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_public_key
    from cryptography.x509 import load_der_x509_certificate

    text = material.lstrip()
    if text.startswith((b"ssh-", b"ecdsa-sha2-")) or (text.startswith(b"{") and b'"kty"' in text):
        return True
    for read in (load_der_public_key, load_der_x509_certificate):
        with contextlib.suppress(ValueError, UnsupportedAlgorithm):
            read(material)
            return True
    return False


def of_pem(key: str | bytes | Path) -> Key:
    """A public key, from PEM or the path of a file with it; raises InvalidValueError."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    data = _pem_of(key)
    try:
        if b"-----BEGIN CERTIFICATE-----" in data:
            material: Any = load_pem_x509_certificate(data).public_key()
        else:
            material = load_pem_public_key(data)
        return Key(material, algorithm_of(material))
    except ValueError as error:
        hint = "; it is a private one" if b"PRIVATE KEY-----" in data else ""
        raise InvalidValueError(f"no public key in PEM that can be used: {error}{hint}") from None


def _pem_of(key: str | bytes | Path) -> bytes:
    if isinstance(key, bytes):
        return key
    if isinstance(key, str) and "-----BEGIN" in key:
        return key.encode()
    try:
        return Path(key).read_bytes()
    except (OSError, TypeError, ValueError) as error:
        raise InvalidValueError(f"the key cannot be read: {error}") from None


def algorithm_of(material: Any) -> str:
    """The algorithm of a key: HS256, RS256, ES256 or EdDSA.

    Raises:
        ValueError: it is of another kind, or too short.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    if isinstance(material, bytes):
        if len(material) < SECRET_BYTES:
            raise ValueError(f"a secret has at least {SECRET_BYTES} bytes")
        return "HS256"
    if isinstance(material, RSAPublicKey):
        if material.key_size < RSA_BITS:
            raise ValueError(f"an RSA key has at least {RSA_BITS} bits")
        return "RS256"
    if isinstance(material, EllipticCurvePublicKey) and isinstance(material.curve, SECP256R1):
        return "ES256"
    if isinstance(material, Ed25519PublicKey):
        return "EdDSA"
    raise ValueError(f"{type(material).__name__} signs by none of HS256, RS256, ES256 and EdDSA")
