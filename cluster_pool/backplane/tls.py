"""Explains faults of TLS, with advice. Pure."""

import re
import ssl
from typing import Final

_OTHER_CA: Final = (
    "its certificate comes from a CA that is not trusted here: ssl_ca_certs= names a file with "
    "the right one"
)
NO_TLS: Final = "that port speaks no TLS: begin the URL with redis instead of rediss"
TLS: Final = "that port speaks TLS: begin the URL with rediss instead of redis"
_WANTED: Final = "it wants a certificate of its clients: give ssl_certfile= and ssl_keyfile="
_NOT_OURS: Final = "it does not accept the certificate in ssl_certfile"

_VERIFY: Final = {
    2: _OTHER_CA,
    9: "its certificate is not valid yet: are the clocks right?",
    10: "its certificate has expired: renew it",
    18: _OTHER_CA,
    19: _OTHER_CA,
    20: _OTHER_CA,
    21: _OTHER_CA,
    23: "its certificate was revoked",
    62: "its certificate is for other names: use one of these, or ssl_check_hostname=false",
    64: "its certificate is for other addresses: use a name, or ssl_check_hostname=false",
}
"""OpenSSL's codes for certificates that do not verify (X509_V_ERR_…)."""
_REASONS: Final = {
    "WRONG_VERSION_NUMBER": NO_TLS,
    "RECORD_LAYER_FAILURE": NO_TLS,
    "PACKET_LENGTH_TOO_LONG": NO_TLS,
    "UNKNOWN_PROTOCOL": NO_TLS,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _WANTED,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": _WANTED,
    "TLSV1_ALERT_UNKNOWN_CA": f"{_NOT_OURS}: it does not trust its CA",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": f"{_NOT_OURS}, which has expired: renew it",
    "SSLV3_ALERT_BAD_CERTIFICATE": _NOT_OURS,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _NOT_OURS,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": _NOT_OURS,
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks another version of TLS: see ssl_min_version",
    "UNSUPPORTED_PROTOCOL": "it speaks an older version of TLS: see ssl_min_version",
}
_PLACE: Final = re.compile(r" \(_ssl\.c:\d+\)")
"""The line of Python's own source, which OpenSSL's errors end with."""


def explained(error: BaseException | None) -> str:
    """Advice for an error, or one that caused it; "" if none of them is a known fault of TLS."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return _VERIFY.get(error.verify_code, "")
        if isinstance(error, ssl.SSLError) and error.reason in _REASONS:
            return _REASONS[error.reason]
        error = error.__cause__ or error.__context__
    return ""


def unplaced(text: str) -> str:
    """The text of an error without the line of Python's source."""
    return _PLACE.sub("", text)
