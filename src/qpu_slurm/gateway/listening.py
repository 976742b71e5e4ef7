# SPDX-License-Identifier: Apache-2.0
"""The gateway's sockets: held by systemd, or its own.

A socket that systemd holds (contrib/systemd/qpu-slurm-gateway.socket) outlives the gateway. Connections that
arrive while the gateway restarts are not refused: they wait in the socket's backlog.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from typing import TYPE_CHECKING, Any

import structlog

from qpu_slurm.config.private import refuse_exposed
from qpu_slurm.errors import ConfigError
from qpu_slurm.system.systemd import passed_sockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpu_slurm.config import GatewayConfig

_BACKLOG = 1024
"""Connections that wait until they are accepted; the socket unit has the same."""

_HANDSHAKE_SECONDS = 10.0
"""Seconds for TLS's handshake and for its end."""

_log = structlog.get_logger(__name__)


class Listener:
    """The sockets on which connections are accepted.

    Args:
        servers: asyncio's part of each.
        certificate: The TLS context; None for plain http.
        held: Whether systemd holds the sockets.

    Attributes:
        url: The URL of the first.
        held: As above.
    """

    def __init__(
        self, servers: list[asyncio.Server], certificate: ssl.SSLContext | None, *, held: bool
    ) -> None:
        self._servers = servers
        self.held = held
        host, port, *_ = servers[0].sockets[0].getsockname()
        host = f"[{host}]" if ":" in host else host
        self.url = f"{'http' if certificate is None else 'https'}://{host}:{port}"

    async def close(self) -> None:
        """Accept no more connections. Those in the backlog of a socket that systemd holds go on waiting."""
        loop = asyncio.get_running_loop()
        for server in self._servers:
            for each in server.sockets:
                loop.remove_reader(each.fileno())
        # asyncio silently drops a connection that it accepted in this turn of its loop if the server is
        # closed before the next turn.
        await asyncio.sleep(0)
        for server in self._servers:
            server.close()


async def listen(
    settings: GatewayConfig,
    certificate: ssl.SSLContext | None,
    make: Callable[[], asyncio.BaseProtocol],
) -> Listener:
    """Start to accept connections.

    Args:
        settings: The address to listen on, if systemd holds no socket.
        certificate: The TLS context; None for plain http.
        make: Makes a connection's protocol.

    Raises:
        ConfigError: The address cannot be listened on, or keys would cross a network unencrypted.
    """
    held = _held()
    _refuse_another_port(settings, held)
    await _refuse_clear_text(settings, held)
    host, port = _address(settings.listen)
    handshake = None if certificate is None else _HANDSHAKE_SECONDS
    options: dict[str, Any] = {
        "ssl": certificate,
        "backlog": _BACKLOG,
        "ssl_handshake_timeout": handshake,
        "ssl_shutdown_timeout": handshake,
    }
    loop = asyncio.get_running_loop()
    try:
        if held:
            servers = [await loop.create_server(make, sock=each, **options) for each in held]
        else:
            servers = [await loop.create_server(make, host, port, **options)]
    except OSError as error:
        raise ConfigError(f"[gateway] listen: {settings.listen}: {error.strerror or error}.") from None
    return Listener(servers, certificate, held=bool(held))


def _held() -> list[socket.socket]:
    """Take the sockets that systemd holds.

    Raises:
        ConfigError: They cannot be listened on.
    """
    try:
        held = passed_sockets()
        for each in held:
            listens = each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if not listens or each.family not in {socket.AF_INET, socket.AF_INET6}:
                raise ConfigError(_NO_LISTENER)
    except OSError:
        raise ConfigError(_NO_LISTENER) from None
    return held


_NO_LISTENER = (
    "What systemd has passed (LISTEN_FDS) is no TCP socket that listens. "
    "Compare the socket unit with contrib/systemd/qpu-slurm-gateway.socket."
)


def _refuse_another_port(settings: GatewayConfig, held: list[socket.socket]) -> None:
    """Refuse an address that [gateway] does not name: jobs would use another one."""
    port = _address(settings.listen)[1]
    others = sorted({each.getsockname()[1] for each in held} - {port})
    if others and port:
        raise ConfigError(
            f"[gateway] listen: {settings.listen}, but the socket that systemd holds is on port {others[0]}. "
            "Write the same port into ListenStream= (`systemctl edit qpu-slurm-gateway.socket`)."
        )


async def _refuse_clear_text(settings: GatewayConfig, held: list[socket.socket]) -> None:
    """Refuse to send job keys through a network unencrypted."""
    if settings.certificate is not None:
        return
    if held:
        addresses = [each.getsockname()[0] for each in held]
    else:
        host, _ = _address(settings.listen)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ConfigError(f"[gateway] listen: {settings.listen}: {error.strerror or error}.") from None
        addresses = [address[0] for *_, address in found]
    if not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        where = "the socket that systemd holds" if held else settings.listen
        raise ConfigError(
            f"[gateway] listen: {where} is open to other hosts, and keys would be sent "
            "unencrypted. Set certificate and certificate_key."
        )


def _address(listen_on: str) -> tuple[str, int]:
    host, _, port = listen_on.rpartition(":")
    return host.strip("[]"), int(port)


# TLS.


def certificate_of(settings: GatewayConfig) -> ssl.SSLContext | None:
    """Return the TLS context; None if no certificate is configured.

    Raises:
        ConfigError: The certificate, or its key, cannot be used.
    """
    if settings.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # Also where the machine's openssl.cnf allows older versions.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(settings, context)
    return context


def load_certificate(settings: GatewayConfig, context: ssl.SSLContext) -> None:
    """Have new connections use the certificate; existing ones keep theirs.

    Raises:
        ConfigError: The certificate, or its key, cannot be used.
    """
    if settings.certificate is None or settings.certificate_key is None:
        return
    refuse_exposed(settings.certificate_key)
    try:
        # An empty password: OpenSSL would ask for one at a terminal that a service does not have.
        context.load_cert_chain(settings.certificate, settings.certificate_key, password="")
    except OSError as error:  # ssl.SSLError among them
        raise ConfigError(
            f"[gateway] certificate: {settings.certificate} and its key cannot be used: "
            f"{error.strerror or error}."
        ) from None
