# SPDX-License-Identifier: Apache-2.0
"""TLS certificates: which authorities are trusted, and why a server's certificate was not accepted."""

from __future__ import annotations

import os
import ssl
from enum import StrEnum
from pathlib import Path

_ENVIRONMENT = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of openssl/x509_vfy.h, for which Python has no name."""

_FLIGHTS = 3
"""How often each side has its turn: enough for TLS 1.2, which takes more than TLS 1.3."""


class Why(StrEnum):
    """Why a certificate was not accepted."""

    EXPIRED = "expired"
    FUTURE = "future"
    NAME = "name"
    AUTHORITY = "authority"
    FORM = "form"


# The codes are those of openssl-verify(1): X509_V_ERR_….
_WHY = {
    9: Why.FUTURE,
    10: Why.EXPIRED,
    62: Why.NAME,
    64: Why.NAME,
    **dict.fromkeys((2, 18, 19, 20, 21, 27), Why.AUTHORITY),
}

_SENTENCES = {
    Why.EXPIRED: "{server} shows a certificate that has expired",
    Why.FUTURE: "{server} shows a certificate that is not valid yet by this host's clock",
    Why.NAME: "{server} shows a certificate that is for another name",
    Why.AUTHORITY: "{server} shows a certificate of an authority that this host does not trust",
    Why.FORM: "{server} shows a certificate that is not accepted",
}


def why_refused(error: ssl.SSLCertVerificationError) -> Why:
    """Return why a certificate was not accepted."""
    return _WHY.get(error.verify_code, Why.FORM)


def refusal(error: ssl.SSLCertVerificationError, server: str) -> str:
    """Say why a server's certificate was not accepted, in OpenSSL's words, too; without a full stop.

    Args:
        error: What Python raised.
        server: The host, with its port.
    """
    return f"{_SENTENCES[why_refused(error)].format(server=server)} ({error.verify_message.rstrip('.')})"


def ends_at(server: ssl.SSLContext | None, certificate: Path | None) -> float | None:
    """Return when a server's certificate ends, in seconds since the epoch.

    A handshake in memory shows it: Python reads the dates of a peer's certificate only.

    Args:
        server: Has loaded the certificate; None without TLS.
        certificate: Its file.

    Returns:
        The time; None without TLS, or if no client would take the certificate, whatever the date.
    """
    if server is None or certificate is None:
        return None
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(certificate)
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asks = client.wrap_bio(to_client, to_server)
    answers = server.wrap_bio(to_server, to_client, server_side=True)
    for end in (asks, answers) * _FLIGHTS:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLError:
            return None
    shown = (asks.getpeercert() or {}).get("notAfter")
    return None if shown is None else float(ssl.cert_time_to_seconds(str(shown)))


def authorities() -> str | None:
    """Return the file or directory of the authorities that steps trust; None: those that the machine trusts.

    That is what the variables of requests and curl name, as for other programs in jobs. Without them it is
    what Slurm's hooks trust: what SSL_CERT_FILE names, or the machine's own. A machine that has none trusts
    those that come with certifi.
    """
    for variable in _ENVIRONMENT:
        if path := os.environ.get(variable):
            return path
    if _machine_has_some():
        return None
    # Only now: importing it takes longer than its use.
    from certifi import where  # noqa: PLC0415

    return where()


def _machine_has_some() -> bool:
    paths = ssl.get_default_verify_paths()
    return paths.cafile is not None or (paths.capath is not None and any(Path(paths.capath).iterdir()))
