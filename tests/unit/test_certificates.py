# SPDX-License-Identifier: Apache-2.0
"""Why a certificate is not accepted; tests/integration/test_check.py meets real ones."""

from __future__ import annotations

import ssl

import pytest

from qpu_slurm.system.certificates import authorities, refusal

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
