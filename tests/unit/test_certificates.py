# SPDX-License-Identifier: Apache-2.0
"""Why a certificate is not accepted; tests/integration/test_check.py meets real ones."""

from __future__ import annotations

import calendar
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.system.certificates import authorities, ends_at, refusal

if TYPE_CHECKING:
    from pathlib import Path

SAID = {
    9: "is not valid yet by this host's clock",
    10: "has expired",
    18: "of an authority that this host does not trust",
    20: "of an authority that this host does not trust",
    62: "for another name",
    64: "for another name",
    92: "is not accepted",  # such as an authority without keyUsage, for Python 3.13
}


@pytest.mark.parametrize("code", SAID)
def test_each_reason_has_a_sentence_that_names_the_host(code: int) -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = code, "as OpenSSL says."
    sentence = refusal(error, "controller:8470")
    assert sentence.startswith("controller:8470 shows a certificate")
    assert SAID[code] in sentence
    assert sentence.endswith("(as OpenSSL says)")


def test_a_user_comes_before_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURL_CA_BUNDLE", "/curl.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/mine.pem")
    assert authorities() == "/mine.pem"
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    assert authorities() == "/curl.pem"


def test_a_machine_without_authorities_trusts_those_of_certifi(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    monkeypatch.setenv("SSL_CERT_DIR", "/nowhere")
    assert str(authorities()).endswith("cacert.pem")


# When one ends.

CA = """\
[ca]
default_ca = own
[own]
database = {0}/index
serial = {0}/serial
new_certs_dir = {0}
policy = any
default_md = sha256
x509_extensions = extensions
[any]
commonName = supplied
[extensions]
extendedKeyUsage = {1}
[req]
distinguished_name = none
[none]
"""


def context(directory: Path, ends: str, usage: str = "serverAuth") -> tuple[ssl.SSLContext, Path]:
    """Have an authority sign a certificate that ends at a time; return what serves it, and its file."""
    (directory / "ca.cnf").write_text(CA.format(directory, usage))
    (directory / "index").touch()
    (directory / "serial").write_text("01")
    for command in (
        (
            "req -x509 -config ca.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=ca"
            " -days 9999 -keyout ca.key -out ca.pem"
        ),
        (
            "req -config ca.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=gateway"
            " -keyout own.key -out own.csr"
        ),
        (
            f"ca -batch -notext -config ca.cnf -startdate 20200101000000Z -enddate {ends} -in own.csr"
            " -out own.pem -cert ca.pem -keyfile ca.key"
        ),
    ):
        argv = ["openssl", *command.split()]
        subprocess.run(argv, cwd=directory, check=True, capture_output=True, timeout=60)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(directory / "own.pem", directory / "own.key")
    return server, directory / "own.pem"


@pytest.mark.parametrize("year", [2021, 2040])
def test_the_end_of_a_certificate_is_known_also_after_it(tmp_path: Path, year: int) -> None:
    found = ends_at(*context(tmp_path, f"{year}0203040506Z"))
    assert found == calendar.timegm((year, 2, 3, 4, 5, 6))


def test_a_certificate_that_no_client_takes_has_no_end(tmp_path: Path) -> None:
    assert ends_at(*context(tmp_path, "20400203040506Z", "clientAuth")) is None


def test_without_tls_nothing_ends() -> None:
    assert ends_at(None, None) is None
