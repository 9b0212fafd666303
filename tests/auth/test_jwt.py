"""Tokens that are valid, and the ways in which strangers make others."""

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from cluster_pool import AuthenticationError, Identity, InvalidValueError, Jwt, Request
from tests.auth.signing import SECRET, algorithm_name, jwk_of, pem_of, token
from tests.support import async_test

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def encoded(value: Any) -> str:
    """A part of a token."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def forged(header: Any, claims: Any, secret: bytes | None = SECRET.encode()) -> str:
    """A token of any header and claims, signed by HMAC with SHA-256, or not signed."""
    signed = f"{encoded(header)}.{encoded(claims)}"
    if secret is None:
        return f"{signed}."
    return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), 'sha256'))}"


def later(seconds: float = 60) -> int:
    """A moment in the future."""
    return int(time.time() + seconds)


async def refused(jwt: Jwt, text: str, why: str | None = None) -> None:
    """Check that a token is refused, and that the text does not have it."""
    with pytest.raises(AuthenticationError, match=why) as caught:
        await jwt.verify(text)
    assert text not in str(caught.value)


@async_test
async def test_claims_become_an_identity() -> None:
    text = token(id="tab", namespace="app", namespaces=["room:*"], jti="t1", extra=[1])
    alice = await Jwt(secret=SECRET)(Request(query_string=f"token={text}"))
    assert alice is not None
    assert (alice.user, alice.id, alice.namespace, alice.namespaces, alice.token_id) == (
        *("42", "tab", "app"),
        *(("room:*",), "t1"),
    )
    assert alice.expires == alice.claims["exp"] + 10
    assert alice.claims["extra"] == [1]


@async_test
async def test_a_token_without_a_name_is_named_by_its_digest() -> None:
    text = token()
    alice = await Jwt(secret=SECRET).verify(text)
    assert alice is not None
    assert alice.token_id == hashlib.sha256(text.encode()).hexdigest()


@async_test
async def test_without_a_token_there_is_no_identity() -> None:
    assert await Jwt(secret=SECRET)(Request()) is None
    assert await Jwt(secret=SECRET, parameter=None)(Request(query_string=token())) is None


@pytest.mark.parametrize("private", [RSA, EC, ED], ids=["RS256", "ES256", "EdDSA"])
@async_test
async def test_public_keys_verify_as_pem_file_and_set(private: Any, tmp_path: Path) -> None:
    text = token(private, algorithm_name(private), kid="one")
    file = tmp_path / "key.pem"
    file.write_bytes(pem_of(private))
    keys = tmp_path / "jwks.json"
    keys.write_text(json.dumps({"keys": [jwk_of(ED, kid="two"), jwk_of(private, kid="one")]}))
    for jwt in (Jwt(key=pem_of(private)), Jwt(key=str(file)), Jwt(key=file), Jwt(jwks=keys)):
        assert (await jwt.verify(text) or Identity()).user == "42"


@async_test
async def test_a_set_without_names_is_tried_key_by_key(tmp_path: Path) -> None:
    other = ed25519.Ed25519PrivateKey.generate()
    keys = tmp_path / "jwks.json"
    keys.write_text(json.dumps({"keys": [jwk_of(other), jwk_of(ED)]}))
    assert await Jwt(jwks=keys).verify(token(ED, "EdDSA"))
    stranger = ed25519.Ed25519PrivateKey.generate()
    await refused(Jwt(jwks=keys), token(stranger, "EdDSA"), "signature")


@async_test
async def test_the_token_does_not_choose_its_algorithm() -> None:
    """A public key as an HMAC's secret, no signature at all, another hash."""
    public = Jwt(key=pem_of(RSA))
    claims = {"sub": "42", "exp": later()}
    await refused(public, forged({"alg": "HS256", "typ": "JWT"}, claims, pem_of(RSA)), "no key")
    await refused(public, token(RSA, "RS512"), "no key")
    algorithms: list[Any] = ["none", "None", "NONE", "", None, ["HS256"], {}]
    for algorithm in algorithms:
        for jwt in (public, Jwt(secret=SECRET)):
            await refused(jwt, forged({"alg": algorithm}, claims, None))
            await refused(jwt, forged({"alg": algorithm}, claims))
    await refused(Jwt(secret=SECRET), token(SECRET * 2, "HS512"), "no key")


@async_test
async def test_a_key_in_the_header_is_not_used() -> None:
    header = {"alg": "EdDSA", "jwk": jwk_of(ED), "jku": "http://127.0.0.1:1/", "x5u": "http://a/"}
    stranger = token(ED, "EdDSA").split(".")
    await refused(Jwt(key=pem_of(RSA)), ".".join([encoded(header), *stranger[1:]]))


@async_test
async def test_times_audience_and_issuer_are_checked() -> None:
    plain = Jwt(secret=SECRET, leeway=5)
    await refused(plain, token(exp=later(-10)), "expired")
    assert await plain.verify(token(exp=later(-2)))
    await refused(plain, token(nbf=later(30)), "not valid yet")
    await refused(plain, token(exp=None), "missing")
    await refused(plain, token(aud="pool"), "another audience")
    meant = Jwt(secret=SECRET, audience="pool", issuer="https://login.example")
    assert await meant.verify(token(aud=["pool", "x"], iss="https://login.example"))
    await refused(meant, token(aud="other", iss="https://login.example"), "another audience")
    await refused(meant, token(iss="https://login.example"), "missing")
    await refused(meant, token(aud="pool", iss="https://login"), "another issuer")


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": "soon"},
        {"exp": True},
        {"exp": [1]},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": 10**400},
        {"exp": -1},
        {"exp": later(), "sub": 42},
        {"exp": later(), "sub": ""},
        {"exp": later(), "sub": "x" * 251},
        {"exp": later(), "sub": "a\u0000"},
        {"exp": later(), "id": {}},
        {"exp": later(), "namespaces": "room:*"},
        {"exp": later(), "namespace": "~"},
        {"exp": later(), "nbf": "x"},
        {"exp": later(), "iat": "x"},
        [],
        "text",
        None,
    ],
)
@async_test
async def test_odd_claims_are_refused(claims: Any) -> None:
    await refused(Jwt(secret=SECRET), forged({"alg": "HS256", "typ": "JWT"}, claims))


@async_test
async def test_odd_texts_are_refused() -> None:
    deep = b"[" * 3000 + b"]" * 3000
    odd = [
        *("", ".", "..", "...", "a.b.c", "é.é.é", "\ud800"),
        "x" * 8193,
        f"{encoded(deep)}.{encoded({})}.x",
        forged({"alg": "HS256", "crit": ["exp"]}, {"exp": later()}),
        forged({"alg": "HS256", "b64": False}, {"exp": later()}),
        forged({"alg": "HS256", "kid": 7}, {"exp": later()}, b"another secret"),
        token()[:-1],
        token() + "A",
    ]
    for text in odd:
        with pytest.raises(AuthenticationError):
            await Jwt(secret=SECRET).verify(text)


@async_test
async def test_an_identity_may_be_made_by_the_application() -> None:
    def guest(claims: Any) -> Identity | None:
        return Identity(user=f"x-{claims['sub']}", expires=1e10) if claims["sub"] != "43" else None

    jwt = Jwt(secret=SECRET, identity=guest)
    found = await jwt.verify(token(jti="t"))
    assert found is not None
    assert (found.user, found.expires, found.token_id) == ("x-42", 1e10, "t")
    assert await jwt.verify(token(sub="43")) is None


def test_exactly_one_kind_of_key_is_needed() -> None:
    for wrong in ({}, {"secret": SECRET, "jwks": "x"}, {"secret": b"short"}):
        with pytest.raises(InvalidValueError):
            Jwt(**wrong)
