"""The options by which ``serve`` authenticates clients."""

import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cluster_pool import Auth, Identity, InvalidValueError, Request
from cluster_pool.cli.authentication import chosen
from tests.auth.signing import SECRET, pem_of, token
from tests.support import async_test

NOTHING: Any = (None, None, None, None, None)


def guest(request: Request) -> Identity:
    """A rule that lets anyone in."""
    return Identity(user="guest")


GUESTS = Auth(authenticate=guest)


def test_without_options_nothing_is_authenticated() -> None:
    assert chosen(*NOTHING) is None


@async_test
async def test_a_key_file_is_a_public_key_or_a_secret(tmp_path: Path) -> None:
    private = Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(pem_of(private))
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    for name, text in (("key.pem", token(private, "EdDSA")), ("secret", token(aud="pool"))):
        audience = None if name == "key.pem" else "pool"
        auth = chosen(str(tmp_path / name), None, audience, None, None)
        assert auth is not None
        found = await auth.identify(Request(query_string=f"token={text}"))
        assert found.user == "42"


@async_test
async def test_a_secret_of_random_bytes_keeps_those_that_are_white_space(tmp_path: Path) -> None:
    secret = b"\t\n " + bytes(range(128, 160)) + b" \t\r\n "
    for end in (b"", b"\n", b"\r\n"):
        (tmp_path / "secret").write_bytes(secret + end)
        auth = chosen(str(tmp_path / "secret"), None, None, None, None)
        assert auth is not None
        text = jwt.encode({"sub": "42", "exp": int(time.time()) + 60}, secret, "HS256")
        assert (await auth.identify(Request(query_string=f"token={text}"))).user == "42"


@async_test
async def test_a_rule_of_ones_own_is_named_by_its_module() -> None:
    for name in ("guest", "GUESTS"):
        auth = chosen(None, None, None, None, f"{__name__}:{name}")
        assert auth is not None
        assert (await auth.identify(Request())).user == "guest"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("a", "b", None, None, None), "one of"),
        ((None, None, "pool", None, None), "need --jwt-key"),
        (("/no such file", None, None, None, None), "cannot be read"),
        ((None, "http://keys.example/", None, None, None), "https"),
        ((None, None, None, None, "nothing"), "MODULE:ATTRIBUTE"),
        ((None, None, None, None, f"{__name__}:NOTHING"), "must be an Auth"),
    ],
)
def test_options_that_cannot_be_used_say_why(options: Any, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        chosen(*options)
