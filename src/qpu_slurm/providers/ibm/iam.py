# SPDX-License-Identifier: Apache-2.0
"""The token that IBM Cloud's IAM gives for an API key."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

import msgspec

from qpu_slurm.errors import RefusedError
from qpu_slurm.providers.ibm import answers
from qpu_slurm.system.deadline import Deadline
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

    from qpu_slurm.providers.ibm.http import Http

_GRANT = "urn:ibm:params:oauth:grant-type:apikey"

_LAST_PART = 0.1
"""A token is renewed when this part of its life is left: 6 minutes of an hour."""


class _Token(NamedTuple):
    value: Secret
    renew_at: Deadline


class IamToken:
    """A token that is asked for when it is needed, and kept as long as it is valid. Threads may share it.

    Args:
        http: The way to IAM.
        api_key: What the token is given for.
    """

    def __init__(self, http: Http, api_key: Secret) -> None:
        self._http = http
        self._api_key = api_key
        self._token: _Token | None = None
        self._lock = threading.Lock()

    def bearer(self, *, deadline: Deadline) -> Secret:
        """Return a token that is valid now.

        Args:
            deadline: When to give up.

        Raises:
            RefusedError: The API key is not accepted.
            UnavailableError: IAM does not answer.
        """
        with self._lock:
            if self._token is None or self._token.renew_at.passed:
                self._token = self._ask(deadline)
            return self._token.value

    def renew(self, refused: Secret) -> None:
        """Forget a token that was refused, unless there is another by now."""
        with self._lock:
            if self._token and self._token.value is refused:
                self._token = None

    def _ask(self, deadline: Deadline) -> _Token:
        asked = time.monotonic()
        form = urlencode({"grant_type": _GRANT, "apikey": self._api_key.reveal()}).encode()
        try:
            answer = self._http.call("POST", "/identity/token", _take, body=form, deadline=deadline)
        except RefusedError as error:
            if error.status is None:  # no answer, so none about the key: a certificate was not accepted
                raise
            raise RefusedError(
                f"IAM does not accept the API key: {error.message}",
                status=error.status,
                code=error.code,
                advice=error.advice or "Check the key: it may be mistyped, deleted or another account's.",
            ) from None
        lifetime = max(answer.expires_in, 0)
        return _Token(Secret(answer.access_token), Deadline.after(lifetime * (1 - _LAST_PART), since=asked))


def _take(response: BaseHTTPResponse) -> answers.Token:
    return msgspec.json.decode(answers.read(response), type=answers.Token)
