"""Keys: which are fit, and how a published set is read, cached and rotated."""

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from cluster_pool import AuthenticationUnavailableError, InvalidValueError
from cluster_pool.auth import keys
from cluster_pool.auth.fetching import Fetch
from cluster_pool.auth.keys import PublishedKeys, keys_of, of_pem, of_secret
from tests.auth.signing import jwk_of, pem_of
from tests.support import async_test


class Place:
    """A key set behind HTTP on loopback, and how often it was asked for."""

    def __init__(self) -> None:
        self.body = b""
        self.status = 200
        self.asked = 0
        self.url = ""


@contextmanager
def place() -> Iterator[Place]:
    """Serve a key set."""
    served = Place()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked += 1
            self.send_response(served.status)
            if served.status == 302:
                self.send_header("Location", f"{served.url}/elsewhere")
            self.end_headers()
            self.wfile.write(served.body)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def key_set(*entries: dict[str, Any]) -> bytes:
    """A JWK set."""
    return json.dumps({"keys": entries}).encode()


ALICE = jwk_of(ed25519.Ed25519PrivateKey.generate(), kid="alice")
BOB = jwk_of(ec.generate_private_key(ec.SECP256R1()), kid="bob")


def test_a_key_decides_its_algorithm() -> None:
    assert of_secret("s" * 32).algorithm == "HS256"
    kinds = [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ]
    assert [of_pem(pem_of(one)).algorithm for one in kinds] == ["RS256", "ES256", "EdDSA"]


def test_keys_that_are_unfit_are_refused(tmp_path: Path) -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    as_pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    unfit: list[Any] = [
        as_pem,
        pem_of(rsa.generate_private_key(65537, 1024)),
        pem_of(ec.generate_private_key(ec.SECP384R1())),
        b"",
        tmp_path / "missing.pem",
    ]
    for key in unfit:
        with pytest.raises(InvalidValueError):
            of_pem(key)
    for secret in ("short", pem_of(private)):
        with pytest.raises(InvalidValueError):
            of_secret(secret)


def test_entries_of_a_set_that_cannot_be_used_are_left_out() -> None:
    data = key_set(
        ALICE,
        {**ALICE, "use": "enc"},
        {**ALICE, "alg": "RS256"},
        {"kty": "none"},
        {"kty": "oct"},
        {"kty": "OKP", "crv": "X25519", "x": "AAAA"},
        {},
    )
    assert [key.name for key in keys_of(data)] == ["alice"]
    for wrong in (b"[]", b"{}", b"no", key_set(*[ALICE] * 101)):
        with pytest.raises((ValueError, TypeError, KeyError)):
            keys_of(wrong)


@async_test
async def test_a_set_is_read_once_for_many_tokens() -> None:
    with place() as served:
        served.body = key_set(ALICE)
        published = PublishedKeys(served.url)
        found = await asyncio.gather(*(published.find("alice") for _ in range(20)))
        assert {key.name for some in found for key in some} == {"alice"}
        assert served.asked == 1


@async_test
async def test_a_new_key_is_found_and_unknown_names_ask_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with place() as served:
        served.body = key_set(ALICE)
        published = PublishedKeys(served.url)
        assert await published.find("alice")
        served.body = key_set(ALICE, BOB)
        assert not await published.find("bob")  # it was read just now
        monkeypatch.setattr(keys, "PAUSE", 0.0)
        assert await published.find("bob")
        monkeypatch.setattr(keys, "PAUSE", 60.0)
        for number in range(50):
            assert not await published.find(f"unknown {number}")
        assert served.asked == 2


@async_test
async def test_the_last_set_stays_when_it_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keys, "PAUSE", 0.0)
    monkeypatch.setattr(keys, "FRESH", 0.0)
    with place() as served:
        published = PublishedKeys(served.url)
        for served.status, served.body in ((500, b""), (200, b"no"), (302, key_set(ALICE))):
            with pytest.raises(AuthenticationUnavailableError):
                await published.find("alice")
        served.status, served.body = 200, key_set(ALICE)
        assert await published.find("alice")
        served.status = 500
        assert await published.find("alice")
    assert await published.find("alice")  # nothing is there any more
    assert "cannot be read" in caplog.text


@async_test
async def test_a_set_in_a_file_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "PAUSE", 0.0)
    file = tmp_path / "jwks.json"
    file.write_bytes(key_set(ALICE))
    published = PublishedKeys(str(file))
    assert await published.find("alice")
    file.write_bytes(key_set(BOB))
    assert await published.find("bob")


def test_a_set_is_fetched_over_tls_or_from_loopback_alone() -> None:
    for url in ("http://keys.example/jwks", "ftp://127.0.0.1/jwks", "file:///etc/passwd", 7):
        with pytest.raises(InvalidValueError):
            PublishedKeys(url)  # type: ignore[arg-type]
    PublishedKeys("https://keys.example/jwks")
    PublishedKeys("http://[::1]:8000/jwks")


@async_test
async def test_a_place_that_hangs_holds_up_no_key_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The set is due to be read again, but its server never answers."""
    monkeypatch.setattr(keys, "FRESH", 0.0)
    monkeypatch.setattr(keys, "PAUSE", 0.0)
    monkeypatch.setattr(keys, "PATIENCE", 0.1)
    file, hangs = tmp_path / "jwks.json", threading.Event()
    file.write_text(
        json.dumps({"keys": [jwk_of(ec.generate_private_key(ec.SECP256R1()), kid="a")]})
    )
    published = PublishedKeys(file)
    assert len(await published.find("a")) == 1

    def read(self: Fetch) -> bytes:
        hangs.wait(20)
        return file.read_bytes()

    monkeypatch.setattr(Fetch, "read", read)
    try:
        async with asyncio.timeout(5):
            for _ in range(30):
                assert len(await published.find("a")) == 1
            assert await published.find("b") == []
    finally:
        hangs.set()


def test_a_public_key_is_no_secret() -> None:
    """A public key or a JWK set in place of a secret would let everybody in."""
    private = rsa.generate_private_key(65537, 2048)
    public = private.public_key()
    entry = jwk_of(private, kid="a")
    for data in (
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        json.dumps(entry),
        json.dumps({"keys": [entry]}, indent=1),
    ):
        with pytest.raises(InvalidValueError, match="anybody may know"):
            of_secret(data)
    assert of_secret("{0123456789 0123456789 0123456789}").algorithm == "HS256"
    assert of_secret(b"0\x82" + bytes(range(40))).algorithm == "HS256"


@pytest.mark.parametrize("where", ["https://[::1", "https://user:password@example.org/jwks"])
def test_an_unfit_url_is_refused_at_once_and_not_shown(where: str) -> None:
    with pytest.raises(InvalidValueError) as refused:
        PublishedKeys(where)
    assert "password@" not in str(refused.value)
