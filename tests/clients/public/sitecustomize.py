# SPDX-License-Identifier: Apache-2.0
"""Stands in for the Internet: what a test's program asks of IBM's public hosts goes to the emulator.

So a job's variables can be those of IBM's public service, which no test reaches.
"""

import os

import requests

_EMULATOR = os.environ["QPU_SLURM_TEST_EMULATOR"]
_HOSTS = {
    "https://quantum.cloud.ibm.com": _EMULATOR,
    "https://iam.cloud.ibm.com": _EMULATOR,
    "https://api.global-search-tagging.cloud.ibm.com": _EMULATOR,
    "https://globalcatalog.cloud.ibm.com/api/v1": f"{_EMULATOR}/catalog",
}

_send = requests.Session.send


def send(self, request, **arguments):
    """Send a request to where the emulator serves its host."""
    for host, emulated in _HOSTS.items():
        if request.url.startswith(host):
            request.url = emulated + request.url.removeprefix(host)
    return _send(self, request, **arguments)


requests.Session.send = send
