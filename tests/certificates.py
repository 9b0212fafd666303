"""Certificates for TLS in tests, issued when they are needed: none in the repository can expire."""

import datetime
import ipaddress
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY: Final = timedelta(days=1)


class Authority:
    """A CA of its own, in a folder.

    Attributes:
        file: its certificate, for those who shall trust it.
    """

    def __init__(self, folder: Path, name: str = "tests") -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(self._key, name, (), timedelta(0), DAY, authority=True)
        self.file = folder / f"{name}-ca.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        hosts: Sequence[str] = (),
        *,
        begins: timedelta = timedelta(0),
        ends: timedelta = DAY,
        password: bytes | None = None,
    ) -> tuple[Path, Path]:
        """Files of a certificate and of its key.

        Args:
            hosts: names and addresses that it is for.
            begins: counted from now; may lie ahead.
            ends: likewise; may lie in the past.
            password: of the key.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._sign(key, name, hosts, begins, ends, authority=False)
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password)
        files = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
            )
        )
        return files

    def _sign(
        self,
        key: ec.EllipticCurvePrivateKey,
        name: str,
        hosts: Sequence[str],
        begins: timedelta,
        ends: timedelta,
        *,
        authority: bool,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC) - timedelta(minutes=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named(self._name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + min(begins, ends - DAY))
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if hosts:
            names = x509.SubjectAlternativeName([_host(one) for one in hosts])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
