# SPDX-License-Identifier: Apache-2.0
"""The tokens that clients get for a job key, in place of IAM's.

Clients parse a token to find its expiry, so it is a real JWT. It names its lease, which is checked at every
request. So a token opens nothing once its lease has ended.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import jwt

if TYPE_CHECKING:
    from jwt.types import Options

    from qpu_slurm.gateway.keys import JobKeys
    from qpu_slurm.journal.model import Lease

SECONDS = 900
"""How long a token is valid; clients renew it before."""

_ALGORITHM = "HS256"
_ISSUER = "qpu-slurm-gateway"

# If the clock was set back, tokens stay valid.
_CHECKS: Options = {"require": ["exp", "sub"], "verify_iat": False, "verify_exp": False}

_REMEMBERED = 10_000
"""Verified tokens that are kept: verification is the slowest part of a request."""


class _Claims(NamedTuple):
    lease_id: int
    created_at: str
    expires_at: int


class BadTokenError(Exception):
    """The token is not one of ours, or has expired."""


class Tokens:
    """Makes tokens, and reads them.

    Args:
        keys: The job keys. The secrets of tokens derive from theirs, so tokens survive a restart.
        seconds: How long a token is valid.
    """

    def __init__(self, keys: JobKeys, seconds: int = SECONDS) -> None:
        self._secrets = keys.macs("tokens")
        self._seconds = seconds
        self._verified: OrderedDict[str, _Claims] = OrderedDict()

    def answer(self, lease: Lease) -> dict[str, str | int]:
        """Return a token for a lease, in IAM's shape."""
        issued = int(time.time())
        claims = {
            "iss": _ISSUER,
            "iam_id": f"job-{lease.job_id}",
            # A lease of a new journal may have the number of an old one.
            "sub": f"{lease.id} {lease.created_at.isoformat()}",
            "iat": issued,
            "exp": issued + self._seconds,
        }
        return {
            "access_token": jwt.encode(claims, self._secrets[0], _ALGORITHM),
            "refresh_token": "not_supported",
            "token_type": "Bearer",
            "expires_in": self._seconds,
            "expiration": issued + self._seconds,
            "scope": "ibm openid",
        }

    def lease(self, token: str) -> tuple[int, str]:
        """Return the lease of a token: its number, and when it was created.

        Raises:
            BadTokenError: The token is not one of ours, or has expired.
        """
        claims = self._verified.get(token)
        if claims is None:
            claims = self._verify(token)
            self._verified[token] = claims
            if len(self._verified) > _REMEMBERED:
                self._verified.popitem(last=False)
        if claims.expires_at <= time.time():
            raise BadTokenError("The token has expired.")
        return claims.lease_id, claims.created_at

    def _verify(self, token: str) -> _Claims:
        for secret in self._secrets:
            with suppress(jwt.InvalidTokenError, ValueError):
                claims = jwt.decode(token, secret, [_ALGORITHM], issuer=_ISSUER, options=_CHECKS)
                number, _, created_at = claims["sub"].partition(" ")
                return _Claims(int(number), created_at, int(claims["exp"]))
        raise BadTokenError("The token is not one of this gateway's.")
