# SPDX-License-Identifier: Apache-2.0
"""The gateway's reload on SIGHUP, which ends no request.

It reopens the log file, which logrotate may have moved, and reads again: the configuration, the services'
keys, the job keys' secret, the TLS certificate. If something cannot be used, the gateway logs that and keeps
its settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from qpu_slurm.config import load
from qpu_slurm.errors import ConfigError, JournalError
from qpu_slurm.system import logs
from qpu_slurm.system.plurals import counted
from qpu_slurm.system.systemd import notify

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpu_slurm.config import Config, GatewayConfig
    from qpu_slurm.gateway.gateway import Gateway

_log = structlog.get_logger(__name__)


class Hangup:
    """Reloads the gateway when it is called.

    Args:
        gateway: The gateway.
        url: The URL at which it listens.
        certify: Loads the certificate that a configuration names; None for a gateway without TLS.
    """

    def __init__(self, gateway: Gateway, url: str, certify: Callable[[GatewayConfig], None] | None) -> None:
        self._gateway = gateway
        self._url = url
        self._certify = certify

    def __call__(self) -> None:
        """Reload; errors are logged, not raised."""
        # First, so that a rotated log is closed whatever is wrong with the rest.
        self._log_to(self._gateway.config)
        try:
            config = self._read()
        except (ConfigError, JournalError) as error:
            _log.error("reload failed", why=str(error))
            self._gateway.metrics.note_reload(successful=False)
            notify(f"STATUS=Listens on {self._url}. The last reload failed, and changed nothing: see the log")
            return
        self._log_to(config)
        self._gateway.metrics.note_reload(successful=True)
        notify(f"STATUS=Listens on {self._url}")
        _log.info("reloaded", qpus=list(config.qpus))

    def _read(self) -> Config:
        """Read the configuration again, and apply it.

        Raises:
            ConfigError: It cannot be used; nothing has changed.
            JournalError: The journal cannot be read.
        """
        old, new = self._gateway.config, load(self._gateway.config.path)
        new.require_qpus()
        self._refuse_what_cannot_change(old, new)
        if self._certify is not None and new.gateway is not None:
            self._certify(new.gateway)
        self._gateway.use(new)
        return new

    def _refuse_what_cannot_change(self, old: Config, new: Config) -> None:
        if new.gateway is None or old.gateway is None:
            raise ConfigError(f"{new.path}: no longer has a [gateway] table.")
        changed = {
            "journal": old.journal != new.journal,
            "[gateway] listen": old.gateway.listen != new.gateway.listen,
            "[gateway] certificate": (old.gateway.certificate is None) != (new.gateway.certificate is None),
            "[gateway] max_connections": old.gateway.max_connections != new.gateway.max_connections,
        }
        if any(changed.values()):
            names = ", ".join(name for name, is_so in changed.items() if is_so)
            raise ConfigError(f"{new.path}: {names} cannot change while the gateway runs. Restart it.")
        for name in sorted(old.qpus.keys() - new.qpus.keys()):
            jobs = sorted({lease.job_id for lease in self._gateway.reader.leases() if lease.qpu == name})
            if jobs:
                raise ConfigError(
                    f"{new.path}: {name} was removed, but is still in use by "
                    f"{counted(len(jobs), 'job')}, such as {jobs[0]}. "
                    f"Nothing could end their sessions. Run `qpu-slurm drain {name}`, and wait for them."
                )

    @staticmethod
    def _log_to(config: Config) -> None:
        path = config.gateway.log if config.gateway and config.gateway.log else config.log
        try:
            logs.configure(config.log_level, path, config.audit_syslog)
        except ConfigError as error:
            _log.error("the log stays where it was", why=str(error))
