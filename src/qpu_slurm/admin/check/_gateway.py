# SPDX-License-Identifier: Apache-2.0
"""What `qpu-slurm check` looks at on the way to the gateway: MUNGE, TLS, and what the gateway runs with."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from qpu_slurm.admin.check._accounts import seen
from qpu_slurm.admin.check._diagnoses import found
from qpu_slurm.admin.check._finding import Finding, fine
from qpu_slurm.config.digest import Digests, digests
from qpu_slurm.errors import ConfigError, QpuSlurmError
from qpu_slurm.gateway.client import connection
from qpu_slurm.reach.local import is_here
from qpu_slurm.system import munge
from qpu_slurm.system.certificates import Why, refusal, why_refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.config import Config, GatewayConfig

_ANSWER_SECONDS = 5
_MOST_BYTES = 65_536
_OK = 200
_DAY = 86_400

_EXPIRES = {"certificate expires": (14, 1 / 6), "certificate expires soon": (30, 1 / 3)}
"""From how many days before its end a certificate is reported, or from which part of its life, if that is
less: one that is renewed each week is not a problem for its whole life."""

_REFUSALS = {
    Why.EXPIRED: "certificate expired",
    Why.FUTURE: "certificate in the future",
    Why.NAME: "certificate of another name",
    Why.AUTHORITY: "authority not trusted",
    Why.FORM: "certificate's form",
}


class _Health(msgspec.Struct):
    status: str
    configuration: Digests = Digests()
    socket: str = ""


def keeps(config: Config) -> bool:
    """Tell whether this host is to have keys and journal, so that it is a problem if they are missing.

    An address of this host may lead to a gateway elsewhere: through a tunnel, a load balancer, or a loopback
    that hosts share. A gateway that is well has its journal open; if the directory is not here, it is not.
    """
    if config.gateway is None:
        return True
    return is_here(config) and (seen(config.journal.parent) or not _is_well(config.gateway))


def _is_well(gateway: GatewayConfig) -> bool:
    try:
        with closing(connection(gateway, _ANSWER_SECONDS)) as own:
            own.request("GET", "/healthz")
            return own.getresponse().status == _OK
    except (ConfigError, OSError, http.client.HTTPException):
        return False


def check(config: Config, *, here: bool) -> Iterator[Finding]:
    """Look at MUNGE, and at whether the gateway answers, and runs with the same configuration.

    Args:
        config: What the admin wrote.
        here: Whether the gateway is on this host.
    """
    if config.gateway is None:
        return
    yield _munge(config)
    wrong = list(_gateway(config, config.gateway, here=here))
    yield from wrong or [fine("gateway", f"{config.gateway.url} answers")]


def _munge(config: Config) -> Finding:
    about, path = "MUNGE", config.slurm.munge_socket
    try:
        caller = munge.decode(munge.encode(b"", socket=path), socket=path)
    except QpuSlurmError as error:
        return found("munge", about, why=error, path=config.path)
    if caller.uid != os.geteuid():
        return found("munge's users", about, me=os.geteuid(), other=caller.uid)
    return fine(about, "makes and reads credentials")


def _gateway(config: Config, gateway: GatewayConfig, *, here: bool) -> Iterator[Finding]:
    about = "gateway"
    try:
        with closing(connection(gateway, _ANSWER_SECONDS)) as own:
            own.connect()
            if isinstance(own.sock, ssl.SSLSocket):
                yield from expiry(own.sock.getpeercert() or {}, urlsplit(gateway.url).netloc)
            own.request("GET", "/healthz")
            answer = own.getresponse()
            status, body = answer.status, answer.read(_MOST_BYTES)
    except ConfigError as error:
        yield found("ca unreadable", about, why=error, path=config.path)
    except (OSError, http.client.HTTPException) as error:
        yield _unreachable(config, gateway, error, here=here)
    else:
        yield from _answered(config, gateway, status, body, here=here)


def _unreachable(config: Config, gateway: GatewayConfig, error: Exception, *, here: bool) -> Finding:
    """Say why there is no answer, and what to do."""
    server, port = urlsplit(gateway.url).netloc, urlsplit(gateway.url).port
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    match error:
        case ssl.SSLCertVerificationError():
            diagnosis, why = _REFUSALS[why_refused(error)], refusal(error, server)
        case ssl.SSLError():
            diagnosis = "gateway without TLS"
        case http.client.HTTPException():
            diagnosis = "not a gateway"
        case socket.gaierror():
            diagnosis = "gateway's host"
        case ConnectionRefusedError() if here and port != int(gateway.listen.rpartition(":")[2]):
            diagnosis = "gateway's port"
        case ConnectionRefusedError():
            diagnosis = "gateway down"
        case _:
            diagnosis = "gateway unreachable"
    host, listen = urlsplit(gateway.url).hostname, gateway.listen
    values = {"url": gateway.url, "host": host, "listen": listen, "path": config.path, "why": why}
    return found(diagnosis, "gateway", **values)


def expiry(certificate: dict[str, Any], server: str) -> Iterator[Finding]:
    """Look at how long the gateway's certificate is good for.

    Args:
        certificate: As `ssl.SSLSocket.getpeercert` has it.
        server: Whose it is.
    """
    begins, ends = (ssl.cert_time_to_seconds(certificate[name]) for name in ("notBefore", "notAfter"))
    left = ends - time.time()
    for diagnosis, (days, part) in _EXPIRES.items():
        if left < min(days * _DAY, part * (ends - begins)):
            yield found(diagnosis, "gateway", server=server, days=max(0, int(left // _DAY)))
            return


def _answered(
    config: Config, gateway: GatewayConfig, status: int, body: bytes, *, here: bool
) -> Iterator[Finding]:
    """Look at what the gateway says of itself."""
    about, url = "gateway", gateway.url
    try:
        health = msgspec.json.decode(body, type=_Health)
    except (msgspec.DecodeError, UnicodeDecodeError):
        yield found("not a gateway", about, url=url, why=f"HTTP {status}", path=config.path)
        return
    if status != _OK:
        yield found("gateway unwell", about, url=url, why=health.status[:200])
        return
    if health.socket == "own":
        yield found("gateway's socket", about)
    own, its = digests(config), health.configuration
    if here and config.qpus and its.all != own.all:
        yield found("gateway is older", about, path=config.path)
    elif not here and config.qpus and its.shared != own.shared:
        yield found("differs from the gateway", "configuration", path=config.path)
