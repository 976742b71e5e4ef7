# SPDX-License-Identifier: Apache-2.0
r"""A throw-away cluster on which qpu_slurm is installed, with the emulator as its quantum service.

    with Lab(checkout) as lab:
        job = lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\ntask_runner ibm_fez input.json output.json\n")
        assert lab.wait(job) == "COMPLETED"

What an admin installs is installed as an admin does it: `make -C plugin install`, a config.toml, the two
hooks in slurm.conf, and the line that `qpu-slurm plugstack` prints in plugstack.conf.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from qpu_slurm.errors import SlurmError
from qpu_slurm_devkit.cluster import SEED_LAYOUT, Cluster, free_port
from qpu_slurm_devkit.emulator import Account, Emulator
from qpu_slurm_devkit.gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qpu_slurm_devkit.cluster import Node

GRES_PARTITION = "quantum"
"""The partition whose jobs may ask for a QPU by a gres alone."""

Credentials = Literal["gateway", "user", "shared"]
"""Whose key the QPUs' sessions are opened with, as config.toml has it."""


class Lab:
    """A cluster with qpu_slurm and an emulated quantum service, gone without a trace at its end.

    Args:
        checkout: The project's sources: the plugin is built and installed from there, the example jobs
            are copied from there.
        credentials: Whose key the QPUs' sessions are opened with; `gateway` runs one.
        emulator: The service; by default one with a premium account, ended with the lab.
        qpus: The QPUs' names, as users and the service call them.
        on_premises: Which of them are reached by the IBM Quantum System API.
        iqm: Further QPUs, behind IQM Server: names that the emulator has chips for.
        top: Further lines at the top of config.toml.
        defaults: Further keys of config.toml's [defaults].
        tables: Further tables of config.toml.
        nodes: The cluster's nodes.
        settings: Further settings of slurm.conf.
        licenses: How many licenses there are of QPUs, by name: jobs then wait in the queue for a QPU that is
            not to be had (contrib/slurm/job_submit.lua).
        private: SlurmUser's own directory, for the journal and the logs of hooks and gateway: on a disk that
            may be full, say. By default below the cluster's.
        gateway_user: Who runs the gateway, and has the journal and the key; by default SlurmUser.
        accounting: Give the cluster a slurmdbd, too.
        second_controller: Give it a second slurmctld, too; see `Cluster`.
        reap_every: How often the gateway looks for leases to end, as config.toml has it.
        hold_socket: Hold the gateway's port, as systemd does for a socket unit.
        keep_directory: Leave the directory there, to look at logs.

    Attributes:
        cluster: The cluster; `users[0]` is who submits.
        emulator: The quantum service.
        account: The account that the QPUs belong to.
        config: The path of config.toml, which hooks and nodes read.
        bin: Where our commands are.
        gateway: The gateway, with a configuration of its own: nobody else can read the key; None without.
        environ: What a user exports before he submits: a PATH with our commands, and his own API key
            where that is needed.
    """

    def __init__(
        self,
        checkout: Path,
        *,
        credentials: Credentials = "gateway",
        emulator: Emulator | None = None,
        qpus: Sequence[str] = ("ibm_fez", "ibm_torino"),
        on_premises: Sequence[str] = (),
        iqm: Sequence[str] = (),
        top: str = "",
        defaults: Mapping[str, str] | None = None,
        tables: str = "",
        nodes: Sequence[Node] = SEED_LAYOUT,
        settings: Mapping[str, str] | None = None,
        licenses: Mapping[str, int] | None = None,
        private: Path | None = None,
        reap_every: str = "2s",
        gateway_user: str | None = None,
        accounting: bool = False,
        second_controller: bool = False,
        hold_socket: bool = False,
        keep_directory: bool = False,
    ) -> None:
        self.checkout = checkout
        self.credentials = credentials
        # Of its own, so that it is found if it is somewhere, and is nowhere else on this machine.
        self.account = emulator.accounts[0] if emulator else Account.premium(f"lab-{secrets.token_hex(8)}")
        self._exit = ExitStack()
        self._own_emulator = emulator is None
        self.emulator = emulator or Emulator(accounts=(self.account,), backends=tuple(qpus))
        self.cluster = Cluster(
            nodes,
            settings=settings,
            accounting=accounting,
            second_controller=second_controller,
            keep_directory=keep_directory,
        )
        self._qpus = (*qpus, *iqm)
        self._iqm = frozenset(iqm)
        self._on_premises = frozenset(on_premises)
        self._top = top
        self._reap_every = reap_every
        self._defaults = dict(defaults or {})
        self._tables = tables
        self._licenses = dict(licenses or {})
        self._directory = self.cluster.directory / "qpu_slurm"
        self.config = self._directory / "config.toml"
        self._owner = gateway_user or self.cluster.slurm_user
        self._private = private or self._directory / "journal"
        self._hook_log = (self._directory / "log" if gateway_user else self._private) / "hooks.log"
        # Not resolved: what is linked to lies outside of the virtual environment.
        self.bin = Path(sys.executable).parent
        self.environ = {
            "PATH": f"{self.bin}:{self.cluster.bin}:/usr/local/bin:/usr/bin:/bin",
            "QPU_SLURM_VENV": str(self.bin.parent),
        }
        if credentials == "user":
            self.environ["QISKIT_IBM_TOKEN"] = self.account.api_key
        self.gateway: Gateway | None = None
        if credentials == "gateway":
            url = f"http://127.0.0.1:{free_port()}"
            self.gateway = Gateway(
                self.cluster, self.bin / "qpu-slurm", self.gateway_config, url, gateway_user, hold=hold_socket
            )

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self._private / "journal.sqlite"

    @property
    def gateway_config(self) -> Path:
        """The gateway's own configuration."""
        return self._private / "gateway.toml"

    @property
    def hook_log(self) -> str:
        """What the hooks logged."""
        return _read(self._hook_log)

    @property
    def gateway_log(self) -> str:
        """What the gateway logged."""
        return _read(self._private / "gateway.log")

    def __enter__(self) -> Self:
        with ExitStack() as on_failure:
            on_failure.callback(self.cluster.stop)
            if self._own_emulator:
                on_failure.enter_context(self.emulator)
            self._install()
            self.cluster.start()
            if self.gateway:
                on_failure.callback(self.gateway.close)
                self.gateway.start()
                on_failure.callback(self.gateway.stop)
            self._exit = on_failure.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def command(self, *arguments: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run `qpu-slurm` as the admin does: as SlurmUser, or as the gateway's user, who has the journal.

        Args:
            arguments: The command and its arguments.
            config: Which configuration; by default the controller's, not the gateway's.
        """
        return self.cluster.run(
            [str(self.bin / "qpu-slurm"), "--config", str(config or self.config), *arguments],
            user=self._owner,
        )

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 180,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as a user; see `Cluster.run`."""
        return self.cluster.run(argv, user=user, env={**self.environ, **(env or {})}, timeout=timeout)

    def submit(
        self, job: str | Sequence[str], *, user: str | None = None, env: Mapping[str, str] | None = None
    ) -> int:
        """Submit a batch job; see `Cluster.submit`."""
        return self.cluster.submit(job, user=user, env={**self.environ, **(env or {})})

    def wait(self, job_id: int, timeout: float = 200) -> str:
        """Wait until a job is over; see `Cluster.wait`."""
        return self.cluster.wait(job_id, timeout)

    def put(self, source: Path, user: str | None = None) -> Path:
        """Copy a file, or what a directory holds, into a user's home; return the home."""
        home = self.cluster.home(user)
        for path in sorted(source.iterdir()) if source.is_dir() else [source]:
            if path.is_file():
                shutil.copy(path, home)
                self._give(home / path.name, user or self.cluster.users[0])
        return home

    # How it is installed

    def _install(self) -> None:
        libexec = self._directory / "libexec"
        self._directory.mkdir(mode=0o755)
        self.cluster.directory.chmod(0o755)
        for path, owner in (
            (self._hook_log.parent, self.cluster.slurm_user),
            (self._private, self._owner),
        ):
            path.mkdir(mode=0o700, exist_ok=True)
            self._give(path, owner)
        self._write_configs()
        _output_of(
            [
                "/usr/bin/make",
                "--silent",
                f"--directory={self.checkout / 'plugin'}",
                "install",
                f"PLUGINDIR={libexec}",
                f"HOOKDIR={libexec}",
                f"QPU_SLURM={self.bin / 'qpu-slurm'}",
                f"CONFIG={self.config}",
                f"GRES_PARTITIONS={GRES_PARTITION}",
                f"SCONTROL={self.cluster.bin / 'scontrol'}",
                f"SLURM_CONF={self.cluster.conf}",
            ]
        )
        self.cluster.settings |= {
            "PrologSlurmctld": str(libexec / "prolog.sh"),
            "EpilogSlurmctld": str(libexec / "epilog.sh"),
        }
        if self._licenses:
            self.cluster.settings |= {
                "JobSubmitPlugins": "lua",
                "Licenses": ",".join(f"{name}:{count}" for name, count in self._licenses.items()),
            }
            lua = self.checkout / "contrib" / "slurm" / "job_submit.lua"
            self.cluster.files["job_submit.lua"] = lua.read_text()
        plugin = str(libexec / "qpu_slurm.so")
        line = [str(self.bin / "qpu-slurm"), "--config", str(self.config), "plugstack", "--plugin", plugin]
        line += ["--helper", str(libexec / "helper")]
        self.cluster.plugstack += _output_of(line).splitlines()

    def _write_configs(self) -> None:
        if self.credentials == "user":
            self._write_config(self.config, self._hook_log, None)
            return
        directory = self._directory if self.credentials == "shared" else self._private
        key = self._write_key(directory / "ibm.key", self.account.api_key)
        if self._on_premises:
            self._write_key(directory / "s3.key", self.account.storage.secret)
        if self.credentials == "shared":
            self._write_config(self.config, self._hook_log, key)
            return
        # On the controller and the nodes, which are no other machines here, there is no such file.
        self._write_config(self.config, self._hook_log, self._directory / "not-on-this-host.key")
        self._write_config(self.gateway_config, self._private / "gateway.log", key)

    def _write_key(self, path: Path, key: str) -> Path:
        path.touch(mode=0o600)
        path.write_text(f"{key}\n")
        self._give(path, self._owner)
        return path

    def _write_config(self, path: Path, log: Path, key: Path | None) -> None:
        environ = self.emulator.environ(self.account)
        defaults = {
            "endpoint": environ["QISKIT_IBM_URL"],
            "iam_endpoint": environ["IAM_URL"],
            "search_endpoint": environ["GLOBAL_SEARCH_URL"],
            "catalog_endpoint": environ["GLOBAL_CATALOG_URL"],
            "instance": self.account.crn,
            "credentials": self.credentials,
            **self._defaults,
        }
        if key is not None:
            defaults["key_file"] = str(key)
        text = [
            _toml({"journal": self.journal, "log": log, "log_level": "debug"}),
            f"{self._top}\n",
            "[slurm]\n",
            _toml(
                {
                    "conf": self.cluster.conf,
                    "bin": self.cluster.bin,
                    "munge_socket": self.cluster.munge_socket,
                }
            ),
            "[defaults]\n",
            _toml(defaults),
            *(f"[[qpu]]\n{_toml(self._qpu(name, key))}" for name in self._qpus),
            self._tables,
        ]
        if self.gateway:
            url = self.gateway.url
            listen = url.removeprefix("http://")
            text += ["[gateway]\n", _toml({"url": url, "listen": listen, "reap_every": self._reap_every})]
            if self._owner != self.cluster.slurm_user:
                text.append(f"trusted_users = {json.dumps([self.cluster.slurm_user])}\n")
        path.write_text("".join(text))
        path.chmod(0o644)

    def _qpu(self, name: str, key: Path | None) -> dict[str, object]:
        """Return a QPU's table, but for what the defaults have."""
        if name in self._iqm:
            ledger = self._private / "iqm"
            return {"name": name, "type": "iqm-server", "endpoint": self.emulator.url, "ledger": ledger}
        if name not in self._on_premises or key is None:
            return {"name": name}
        return {
            "name": name,
            "type": "ibm-quantum-system",
            "endpoint": f"{self.emulator.url}/system",
            "s3_endpoint": f"{self.emulator.url}/s3",
            "s3_bucket": self.account.storage.bucket,
            "s3_access_key_id": self.account.storage.access_key_id,
            "s3_key_file": key.with_name("s3.key"),
        }

    @staticmethod
    def _give(path: Path, user: str) -> None:
        if os.geteuid() == 0:
            shutil.chown(path, user)


def _toml(table: Mapping[str, object]) -> str:
    """Write keys with strings; a JSON string is one of TOML's."""
    return "".join(f"{key} = {json.dumps(str(value))}\n" for key, value in table.items())


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _output_of(argv: Sequence[str]) -> str:
    # A make above us has told its own story in these.
    environ = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL"}}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise SlurmError(f"{' '.join(argv)} failed: {done.stderr.strip()}")
    return done.stdout
