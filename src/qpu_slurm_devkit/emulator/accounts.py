# SPDX-License-Identifier: Apache-2.0
"""Who is calling: API keys, IAM tokens, and the instances that they open."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Protocol, TypeVar

import jwt

from qpu_slurm_devkit.emulator import answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from qpu_slurm_devkit.emulator.clock import Clock
    from qpu_slurm_devkit.emulator.settings import Account

_ALGORITHM = "HS256"


class Owned(Protocol):
    """What belongs to an instance."""

    account: Account


T = TypeVar("T", bound=Owned)


def owned(found: T | None, account: Account, missing: Exception) -> T:
    """Return what was found for an instance; another instance's counts as missing.

    Raises:
        ApiError: As `missing`.
    """
    if found is None or found.account.crn != account.crn:
        raise missing
    return found


class Identity:
    """Issues IAM tokens and tells whose they are.

    Clients take a token apart to learn when to renew it, so it is a real JWT; only this process can sign
    one, so tokens of an earlier emulator are not accepted.

    Args:
        accounts: Who is known.
        token_ttl: Seconds that a token is valid.
        clock: The emulator's time.
    """

    def __init__(self, accounts: Sequence[Account], token_ttl: int, clock: Clock) -> None:
        self.accounts = accounts
        self._ttl = token_ttl
        self._clock = clock
        self._secret = secrets.token_bytes(32)

    def issue(self, api_key: str) -> dict[str, str | int] | None:
        """Give a token for an API key, in IAM's shape; None if the key is unknown."""
        owner = next((account for account in self.accounts if account.api_key == api_key), None)
        if owner is None:
            return None
        issued = int(self._clock.now())
        claims = {
            "iam_id": f"IBMid-{owner.name}",
            "sub": owner.name,
            "iat": issued,
            "exp": issued + self._ttl,
        }
        return {
            "access_token": jwt.encode(claims, self._secret, _ALGORITHM),
            "refresh_token": "not_supported",
            "token_type": "Bearer",
            "expires_in": self._ttl,
            "expiration": issued + self._ttl,
            "scope": "ibm openid",
        }

    def instances(self, request: web.Request) -> list[Account]:
        """List the instances that a request's credential opens.

        Raises:
            ApiError: It has none, or one that is not (or no longer) good.
        """
        scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
        owned: list[Account] = []
        if scheme.lower() == "bearer":
            owner = self._owner(credential)
            key = next((account.api_key for account in self.accounts if account.name == owner), None)
            owned = [account for account in self.accounts if account.api_key == key]
        elif scheme.lower() == "apikey":
            owned = [account for account in self.accounts if account.api_key == credential]
        if not owned:
            raise answers.unauthorized()
        return owned

    def instance(self, request: web.Request) -> Account:
        """Tell which instance a request is for: the one of its Service-CRN header.

        Raises:
            ApiError: The credential is not good, or does not open that instance.
        """
        owned = self.instances(request)
        crn = request.headers.get("Service-CRN", "")
        for account in owned:
            if account.crn == crn:
                return account
        raise answers.forbidden()

    def _owner(self, token: str) -> str | None:
        """Read the name in a token; None if it is not ours or past its time."""
        try:
            # Time is judged by the emulator's clock, which may be ahead.
            claims = jwt.decode(
                token, self._secret, [_ALGORITHM], options={"verify_exp": False, "verify_iat": False}
            )
        except jwt.InvalidTokenError:
            return None
        return str(claims["sub"]) if claims["exp"] > self._clock.now() else None
