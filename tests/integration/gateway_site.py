# SPDX-License-Identifier: Apache-2.0
"""A gateway as an admin installs it, without a cluster: the command, its own MUNGE, an emulator behind it."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

import msgspec
import requests
from msgspec import structs

from qpu_slurm import config
from qpu_slurm.gateway.client import GatewayBroker
from qpu_slurm.gateway.command import READY
from qpu_slurm.gateway.keys import JobKeys
from qpu_slurm.job import variables
from qpu_slurm.job.variables import JobQpu
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import Hold, Lease, LeaseRequest, LeaseState
from qpu_slurm.leases.broker import Broker
from qpu_slurm_devkit.activation import activated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpu_slurm_devkit.emulator import Emulator

SECONDS = 90

PROGRAM = Path(sys.executable).with_name("qpu-slurm")

USER = 1000

HOLDS: dict[Hold, Literal["job", "task"] | None] = {Hold.JOB: "job", Hold.TASK: "task", Hold.NONE: None}

GRANT = "urn:ibm:params:oauth:grant-type:apikey"

CONFIG = """
journal = "{directory}/journal/journal.sqlite"
log = "{directory}/gateway.log"
log_level = "debug"
[slurm]
bin = "{directory}"
munge_socket = "{munge.socket}"
[outage]
acquire_timeout = {acquire_timeout}
[gateway]
url = "http://127.0.0.1:{port}"
listen = "127.0.0.1:{port}"
{gateway}
[defaults]
endpoint = "{endpoint}"
iam_endpoint = "{url}"
instance = "{crn}"
credentials = "gateway"
key_file = "{directory}/ibm.key"
[[qpu]]
name = "ibm_fez"
starts_at_once = {starts_at_once}
[[qpu]]
name = "torino"
backend = "ibm_torino"
[[qpu]]
name = "own"
backend = "ibm_torino"
credentials = "user"
"""


ON_PREMISES = """
[[qpu]]
name = "ibm_torino"
type = "ibm-quantum-system"
endpoint = "{url}/system"
s3_endpoint = "{url}/s3"
s3_bucket = "{storage.bucket}"
s3_access_key_id = "{storage.access_key_id}"
s3_key_file = "{directory}/s3.key"
"""
"""A QPU behind the IBM Quantum System API."""

BEHIND_IQM = """
[[qpu]]
name = "garnet"
type = "iqm-server"
endpoint = "{url}"
ledger = "{directory}/iqm"
[[qpu]]
name = "iqm_small"
type = "iqm-server"
backend = "spark"
endpoint = "{url}"
ledger = "{directory}/iqm"
use_timeslot = "never"
[[qpu]]
name = "always"
type = "iqm-server"
backend = "spark"
endpoint = "{url}"
ledger = "{directory}/iqm"
use_timeslot = "always"
"""
"""QPUs behind an IQM Server."""

FROM_UPSTREAM = f"""
qrmi_config = "{{directory}}/qrmi_config.json"
{CONFIG.partition("[defaults]")[0]}
"""
"""A configuration whose QPUs stand in upstream's file."""


class Munge:
    """A munged with a key of its own."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o755)
        key = directory / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        self.socket = directory / "socket"
        files = [f"--{name}-file={directory}/{name}" for name in ("key", "pid", "seed")]
        self._process = subprocess.Popen(
            ["/usr/sbin/munged", "--foreground", f"--socket={self.socket}", *files],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + SECONDS
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(self.socket)) == 0:
                    return
            assert self._process.poll() is None, "munged has ended"
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


class Site:
    """A host with the gateway.

    Args:
        emulator: Stands for the service.
        gateway: Further lines of [gateway].
        endpoint: The service's API, where it is not the emulator's.
        acquire_timeout: As in [outage]; by default so short that faults are not waited for.
        qpus: Further tables of QPUs.
        text: The configuration, but for these.
        starts_at_once: As in the [[qpu]] ibm_fez.
    """

    def __init__(
        self,
        emulator: Emulator,
        gateway: str = "",
        endpoint: str = "",
        acquire_timeout: int = 3,
        qpus: str = "",
        *,
        text: str = CONFIG,
        starts_at_once: int = 10,
    ) -> None:
        # Other users have to get at MUNGE's socket.
        self.directory = Path(tempfile.mkdtemp(prefix="qpu-gateway-"))
        self.directory.chmod(0o755)
        self.emulator = emulator
        self.account = emulator.accounts[0]
        self.munge = Munge(self.directory / "munge")
        for name, content in (("ibm", self.account.api_key), ("s3", self.account.storage.secret)):
            key = self.directory / f"{name}.key"
            key.touch(mode=0o600)
            key.write_text(content)
        upstreams = self.directory / "qrmi_config.json"
        upstreams.touch(mode=0o600)
        upstreams.write_bytes(msgspec.json.encode(self._upstreams()))
        self.path = self.directory / "config.toml"
        self.path.write_text(
            (text + qpus).format(
                storage=self.account.storage,
                directory=self.directory,
                munge=self.munge,
                port=free_port(),
                endpoint=endpoint or f"{emulator.url}/api/v1",
                url=emulator.url,
                crn=self.account.crn,
                gateway=gateway,
                acquire_timeout=acquire_timeout,
                starts_at_once=starts_at_once,
            )
        )
        self.config = config.load(self.path)
        self.journal = Journal(self.config.journal)
        self.broker = Broker(self.config, self.journal, settle=0, release_timeout=5)
        self._numbers = itertools.count(7)
        self.url = ""
        self.process: subprocess.Popen[str] | None = None
        self.held: socket.socket | None = None

    def _upstreams(self) -> dict[str, Any]:
        """Return what upstream's plugin would read: one QPU on the premises."""
        variables = self.emulator.system_environ("ibm_torino", self.account)
        own = {
            name.removeprefix("ibm_torino_"): value
            for name, value in variables.items()
            if "_QRMI_IBM_QS_" in name
        }
        return {"resources": [{"name": "ibm_torino", "type": "ibm-quantum-system", "environment": own}]}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self.held is not None:
            self.held.close()
        self.journal.close()
        self.munge.stop()
        shutil.rmtree(self.directory)

    # The gateway.

    def hold(self) -> socket.socket:
        """Listen where the gateway is to listen, as systemd does for a socket unit."""
        address = urlsplit(self.config.gateway.url if self.config.gateway else "")
        self.held = socket.create_server((address.hostname or "", address.port or 0), backlog=1024)
        return self.held

    def start(self, environ: Mapping[str, str] | None = None) -> Self:
        """Start the gateway; returns when it answers."""
        argv = [str(PROGRAM), "--config", str(self.path), "gateway", "--until-stdin-closes"]
        argv, inherited = activated(argv, self.held)
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(environ or {})},
            pass_fds=inherited,
            text=True,
        )
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        assert first.startswith(READY), self.log()
        self.url = first.removeprefix(READY).strip()
        return self

    def kill(self) -> None:
        """Kill the gateway, as the kernel does."""
        assert self.process is not None
        self.process.kill()
        self.stop()

    def stop(self) -> int:
        """Have the gateway end by itself; return its exit code."""
        process, self.process = self.process, None
        if process is None:
            return 0
        with process:
            process.terminate()
            return process.wait(SECONDS)

    def hang_up(self) -> None:
        """Tell the gateway to read everything again, as `systemctl reload` does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def log(self) -> str:
        path = self.directory / "gateway.log"
        return path.read_text() if path.exists() else ""

    def events(self, event: str) -> list[dict[str, Any]]:
        """Read what the gateway logged under a name."""
        lines = [msgspec.json.decode(line) for line in self.log().splitlines()]
        return [line for line in lines if line["event"] == event]

    # Leases, made as hooks do, but without the gateway.

    def acquire(self, qpu: str = "ibm_fez", *, job_id: int = 0, user_id: int = USER) -> Lease:
        return self.broker.acquire(self.request(qpu, job_id=job_id, user_id=user_id))[0]

    def bind(self, qpu: str = "ibm_fez", *, job_id: int = 0, user_id: int = USER) -> Lease:
        return self.broker.acquire(self.request(bind=qpu, job_id=job_id, user_id=user_id))[0]

    def later(
        self, qpu: str = "ibm_fez", *, job_id: int = 0, user_id: int = USER, seconds: int = 900
    ) -> Lease:
        """Grant a lease whose session the job's first task opens."""
        wanted = self.request(qpu, job_id=job_id, user_id=user_id)
        return self.broker.acquire(structs.replace(wanted, hold=Hold.TASK, seconds_left=seconds))[0]

    def request(self, *qpus: str, bind: str = "", job_id: int = 0, user_id: int = USER) -> LeaseRequest:
        return LeaseRequest(
            job_id=job_id or next(self._numbers),
            user_id=user_id,
            qpus=qpus,
            bind=(bind,) if bind else (),
            seconds_left=900,
        )

    def forget(self) -> None:
        """Be as new for the next test: without leases, and without what is known of QPUs and of Slurm."""
        self.end_leases()
        self.emulator.reset()
        with closing(sqlite3.connect(self.config.journal, timeout=30)) as db, db:
            db.execute("DELETE FROM seen_qpus")
        # A reaper that finds them would end the leases of the next test's jobs, which Slurm does not know.
        for program in ("squeue", "scontrol"):
            (self.directory / program).unlink(missing_ok=True)

    def end_leases(self) -> None:
        """End all leases, wherever their sessions are."""
        for lease in self.journal.leases():
            opening = lease.state is LeaseState.ACQUIRING
            self.journal.finish(lease.id, LeaseState.FAILED if opening else LeaseState.RELEASED)

    def release(self, lease: Lease) -> None:
        (ended,) = self.broker.release(lease.job_id, "Done.")
        assert ended.state is LeaseState.RELEASED

    def key(self, lease: Lease) -> str:
        return JobKeys.beside(self.config.journal).key(lease).reveal()

    def job(self, lease: Lease) -> Job:
        return Job(self, lease)

    def hooks(self) -> GatewayBroker:
        """Return what hooks and steps ask with."""
        return GatewayBroker(self.config)


class Job:
    """A job that has a lease: what it sees of the gateway, and a plain client of its API."""

    def __init__(self, site: Site, lease: Lease) -> None:
        self.site = site
        self.lease = lease
        self.key = site.key(lease)
        # Another's for each lease, as a node's is for each job that it knows.
        self.temporary = site.directory / f"tmp-{lease.id}"
        self.temporary.mkdir(exist_ok=True)
        self.http = requests.Session()
        self._token()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def _token(self) -> None:
        answer = self.http.post(
            f"{self.site.url}/identity/token",
            data={"grant_type": GRANT, "apikey": self.key},
            timeout=SECONDS,
        )
        assert answer.ok, answer.text
        self.http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    @property
    def token(self) -> str:
        """What the job's requests carry as their header `Authorization`."""
        return str(self.http.headers["Authorization"])

    @property
    def session_id(self) -> str:
        assert self.lease.session_id is not None
        return self.lease.session_id

    @property
    def environ(self) -> dict[str, str]:
        """The variables of the job's steps."""
        qpu = self.site.config.qpu(self.lease.qpu)
        behind = qpu.seen_by_jobs(self.site.url)
        key = JobKeys.beside(self.site.config.journal).key(self.lease)
        hold = HOLDS[self.lease.hold]
        held = variables.to_environ(
            [JobQpu.bind(behind, api_key=key, session_id=self.lease.session_id, hold=hold)]
        )
        own = {"SLURM_JOB_ID": str(self.lease.job_id), "TMPDIR": str(self.temporary)}
        return {"PATH": os.defpath, **own, **held}

    def send(self, method: str, path: str, **arguments: Any) -> requests.Response:  # noqa: ANN401 - as requests
        return self.http.request(method, f"{self.site.url}/api/v1{path}", timeout=SECONDS, **arguments)

    def get(self, path: str, **query: str) -> Any:  # noqa: ANN401 - JSON
        answer = self.send("GET", path, params=query)
        assert answer.ok, answer.text
        return answer.json()

    def submission(self, params: object = None, **fields: object) -> dict[str, object]:
        return {
            "program_id": "sampler",
            "backend": self.site.config.qpu(self.lease.qpu).backend,
            "session_id": self.lease.session_id,
            "params": {"pubs": [["?"]], "version": 2} if params is None else params,
            **fields,
        }

    def submit(self, **fields: object) -> str:
        answer = self.send("POST", "/jobs", json=self.submission(**fields))
        assert answer.ok, answer.text
        task_id: str = answer.json()["id"]
        return task_id


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run(job: Job, *argv: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in a job's environment."""
    return subprocess.run(
        [*map(str, argv)],
        env=job.environ,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def program(job: Job, text: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a job's environment."""
    return run(job, sys.executable, "-W", "ignore", "-c", textwrap.dedent(text))
