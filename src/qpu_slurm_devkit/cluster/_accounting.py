# SPDX-License-Identifier: Apache-2.0
"""A throw-away cluster's accounting: slurmdbd and the MariaDB that it writes to (slurmdbd.conf(5))."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

from qpu_slurm.errors import SlurmError
from qpu_slurm_devkit.cluster import _configuration

if TYPE_CHECKING:
    from pathlib import Path

DEBIAN_PACKAGES = ("slurmdbd", "slurm-wlm-mysql-plugin", "mariadb-server")
"""What it needs on Debian, beside what a cluster needs."""

DATABASE = "mariadbd"
DAEMON = "slurmdbd"

_NEEDED = ("mariadb-install-db", DATABASE, "mariadb", DAEMON)
_PATH = "/usr/bin:/usr/sbin:/bin:/sbin"
_USER = "slurm"
_NAME = "slurm_acct_db"


class Accounting:
    """The daemons of one cluster's accounting, and their files.

    MariaDB listens on loopback alone, with a password of its own: slurmdbd can be told no socket.

    Args:
        directory: The cluster's.
        user: Who runs both: SlurmUser, since slurmdbd runs as nobody else does.
        munge_socket: That of the cluster's munged.

    Attributes:
        argv: How each daemon is started, by name.

    Raises:
        SlurmError: A program is missing; it says what to install.
    """

    def __init__(self, directory: Path, user: str, munge_socket: Path) -> None:
        found = {name: shutil.which(name, path=_PATH) for name in _NEEDED}
        missing = [name for name, program in found.items() if program is None]
        if missing:
            raise SlurmError(
                f"Slurm's accounting needs {', '.join(missing)}, which this machine does not have. On "
                f"Debian, as root: apt-get install --no-install-recommends {' '.join(DEBIAN_PACKAGES)}"
            )
        self._programs = {name: program for name, program in found.items() if program is not None}
        self._directory = directory / "accounting"
        self._data = self._directory / "data"
        self._socket = self._directory / "mariadb.socket"
        self._user = user
        self._munge_socket = munge_socket
        self._password = secrets.token_hex(16)
        self._ports = {name: _configuration.free_port() for name in (DATABASE, DAEMON)}
        self.argv = {
            DATABASE: [
                self._programs[DATABASE],
                "--no-defaults",
                f"--user={user}",
                f"--datadir={self._data}",
                f"--socket={self._socket}",
                f"--pid-file={self._directory}/mariadb.pid",
                "--bind-address=127.0.0.1",
                f"--port={self._ports[DATABASE]}",
                "--innodb-log-file-size=16M",
                "--innodb-lock-wait-timeout=900",
                # It is thrown away: no write needs to survive a loss of power.
                "--innodb-flush-log-at-trx-commit=0",
            ],
            DAEMON: [self._programs[DAEMON], "-D"],
        }

    @property
    def settings(self) -> dict[str, str]:
        """What slurm.conf says of it."""
        return {
            "AccountingStorageType": "accounting_storage/slurmdbd",
            "AccountingStorageHost": "127.0.0.1",
            "AccountingStoragePort": str(self._ports[DAEMON]),
            # Clients of slurmdbd take munged's socket from here, and not from AuthInfo.
            "AccountingStoragePass": str(self._munge_socket),
            "AccountingStoreFlags": "job_comment",
            "JobAcctGatherType": "jobacct_gather/none",
        }

    def make(self) -> None:
        """Make the database's files and slurmdbd.conf, which slurmdbd looks for beside slurm.conf."""
        account = pwd.getpwnam(self._user)
        self._directory.mkdir(mode=0o755)
        os.chown(self._directory, account.pw_uid, account.pw_gid)
        self._run(
            "mariadb-install-db",
            "--no-defaults",
            f"--user={self._user}",
            f"--datadir={self._data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )
        conf = self._directory.parent / "etc" / "slurmdbd.conf"
        conf.touch(mode=0o600)
        os.chown(conf, account.pw_uid, account.pw_gid)
        lines = {
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self._munge_socket}",
            # It refuses to run where this is another name than the host's, whatever the address.
            "DbdHost": socket.gethostname().partition(".")[0],
            "DbdAddr": "127.0.0.1",
            "DbdPort": str(self._ports[DAEMON]),
            "SlurmUser": self._user,
            "LogFile": f"{self._directory.parent}/log/{DAEMON}.log",
            "PidFile": f"{self._directory.parent}/run/{DAEMON}.pid",
            "StorageType": "accounting_storage/mysql",
            "StorageHost": "127.0.0.1",
            "StoragePort": str(self._ports[DATABASE]),
            "StorageUser": _USER,
            "StoragePass": self._password,
            "StorageLoc": _NAME,
        }
        conf.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))

    def make_database(self) -> None:
        """Make the database and its user, once MariaDB answers; slurmdbd's own way fails at first."""
        self._run(
            "mariadb",
            "--no-defaults",
            "--user=root",
            f"--socket={self._socket}",
            f"--execute=CREATE DATABASE {_NAME}; GRANT ALL ON {_NAME}.* TO '{_USER}'@'127.0.0.1' "
            f"IDENTIFIED BY '{self._password}'; GRANT ALL ON {_NAME}.* TO '{_USER}'@'localhost' "
            f"IDENTIFIED BY '{self._password}';",
        )

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs[program], *arguments], capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            raise SlurmError(f"{program} failed: {done.stderr.strip() or done.stdout.strip()}")
