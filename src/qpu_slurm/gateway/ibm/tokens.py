# SPDX-License-Identifier: Apache-2.0
"""The tokens that clients get for a job key, in IAM's place.

Clients take a token apart to learn when to renew it, so it is a real JWT. It says which lease it is for, and
the lease is looked at anew at every request: that a token is valid for a while does not make it outlive it.
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

# A clock that was set back makes no token a forged one.
_CHECKS: Options = {"require": ["exp", "sub"], "verify_iat": False, "verify_exp": False}

_REMEMBERED = 10_000
"""Tokens that were verified need not be again: that is what takes longest of all that a request needs."""


class _Claims(NamedTuple):
    lease_id: int
    created_at: str
    expires_at: int


class BadTokenError(Exception):
    """It is not one of ours, or its time is over."""


class Tokens:
    """Makes tokens, and reads them.

    Args:
        keys: Has the secrets; ours are derived from them, so that tokens survive a restart.
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
            # A lease of a new journal may have an old one's number.
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
        """Read which lease a token is for: its number, and when it was made.

        Raises:
            BadTokenError: See there; the text says which.
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
