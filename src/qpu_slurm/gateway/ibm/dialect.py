# SPDX-License-Identifier: Apache-2.0
"""The state of IBM's dialect: clients' tokens, and the services behind the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from qpu_slurm.gateway.answers import forbidden, unauthorized
from qpu_slurm.gateway.ibm.copies import Copies
from qpu_slurm.gateway.ibm.tokens import BadTokenError, Tokens
from qpu_slurm.gateway.ibm.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qpu_slurm.config import QpuConfig
    from qpu_slurm.gateway.callers import Caller
    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.gateway.upstream import Upstream

    Reach = Callable[[QpuConfig, Gateway], Upstream | None]

T = TypeVar("T")


class IbmDialect:
    """Tokens and services; see `gateway.Dialect`.

    Args:
        gateway: The gateway.
        kinds: The kinds of QPUs whose clients speak this dialect. Each returns the upstream of a QPU of its
            kind, and None for any other.

    Attributes:
        tokens: The tokens that clients get for their job keys.
    """

    def __init__(self, gateway: Gateway, kinds: Sequence[Reach]) -> None:
        self._kinds = kinds
        self.tokens = Tokens(gateway.keys)
        self._gateway = gateway
        self._upstreams: dict[str, Upstream] = {}
        self._copies: dict[str, Copies] = {}
        self._watches: dict[str, Watch] = {}

    def renew(self) -> None:
        """Apply the gateway's current keys, QPUs and connections."""
        gateway = self._gateway
        self.tokens = Tokens(gateway.keys)
        self._upstreams = {
            name: upstream
            for name, qpu in gateway.config.qpus.items()
            if qpu.through_gateway
            for kind in self._kinds
            if (upstream := kind(qpu, gateway)) is not None
        }
        self._copies = {name: Copies(gateway, upstream) for name, upstream in self._upstreams.items()}
        self._watches = {
            name: Watch(gateway, upstream, self._copies[name]) for name, upstream in self._upstreams.items()
        }

    def caller(self, token: str) -> Caller:
        """Return the caller that a token belongs to.

        Raises:
            ApiError: The token is invalid or expired, or its lease has ended.
        """
        try:
            lease_id, created_at = self.tokens.lease(token)
        except BadTokenError as error:
            raise unauthorized(str(error)) from None
        return self._gateway.callers.of_lease(lease_id, created_at)

    def upstream(self, qpu: str) -> Upstream:
        """Return the service of a QPU behind the gateway.

        Raises:
            ApiError: The QPU was just removed from the configuration, or its clients speak another dialect.
        """
        return _of(self._upstreams, qpu)

    def copies(self, qpu: str) -> Copies:
        """Return the copies of a service's answers; see `upstream`."""
        return _of(self._copies, qpu)

    def watch(self, qpu: str) -> Watch:
        """Return what watches the tasks on a QPU; see `upstream`."""
        return _of(self._watches, qpu)


def _of(parts: Mapping[str, T], qpu: str) -> T:
    try:
        return parts[qpu]
    except KeyError:
        raise forbidden(
            f"The gateway has no QPU {qpu} that is used like one of IBM's.",
            "Use its own client; `qpu-slurm qpus` shows whether it is still in the configuration.",
        ) from None


IBM = web.AppKey("ibm", IbmDialect)
