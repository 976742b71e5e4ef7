# SPDX-License-Identifier: Apache-2.0
"""The throw-away cluster itself: its daemons, its users and its jobs."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from qpu_slurm.errors import SlurmError
from qpu_slurm.slurm.no_answer import NO_ANSWER
from qpu_slurm.system.deadline import Deadline
from qpu_slurm_devkit.cluster import _configuration, _keeper, _programs
from qpu_slurm_devkit.cluster._accounting import DATABASE, Accounting
from qpu_slurm_devkit.cluster._controllers import CONTROLLERS, two_controllers
from qpu_slurm_devkit.cluster._daemons import Daemons

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from qpu_slurm_devkit.cluster._configuration import Node

_OVER = re.compile(
    "BOOT_FAIL|CANCELLED|COMPLETED|DEADLINE|FAILED|NODE_FAIL|OUT_OF_MEMORY|PREEMPTED|REVOKED|TIMEOUT"
)
"""The states in which a job is over (squeue(1))."""

_PATIENCE = 45.0
"""Seconds in which a question that had no answer is asked again."""


class Cluster:
    """A Slurm cluster that lives in one directory and leaves nothing behind.

    Started by root it is realistic: slurmctld is run by `slurm`, slurmd by root, jobs by the ordinary
    users that every Debian has. Started by somebody else, all of it is run by him.

    It ends with its `with` block, however that is left; if the whole Python process is killed, the
    cluster ends as well (see `_keeper`).

    Args:
        nodes: The compute nodes.
        settings: Further settings of slurm.conf, such as `{"PrologSlurmctld": "/path"}`.
        plugstack: The lines of plugstack.conf.
        accounting: Run slurmdbd and a MariaDB for it, too.
        second_controller: Run a second slurmctld, `slurmctld2`, which takes over when the first one is gone.
            That takes root: each has a host name of its own.
        keep_directory: Leave the directory there at the end, to look at logs.

    Attributes:
        settings: As above; may be changed until the cluster is started.
        plugstack: Likewise.
        files: Further files beside slurm.conf, by name, such as job_submit.lua; likewise.
        directory: Where everything is kept. It is there before the start, for whatever the settings name,
            and `stop` removes it.
        users: The accounts that jobs are run by; the first is the default.
        slurm_user: SlurmUser: who may administer the cluster, and runs the controller's hooks.
        bin: Where Slurm's commands are.
        version: Slurm's, such as (22, 5, 8).

    Raises:
        SlurmError: Slurm is not installed; it says what to install.
    """

    def __init__(
        self,
        nodes: Sequence[Node] = _configuration.SEED_LAYOUT,
        *,
        settings: Mapping[str, str] | None = None,
        plugstack: Sequence[str] = (),
        accounting: bool = False,
        second_controller: bool = False,
        keep_directory: bool = False,
    ) -> None:
        self.nodes = tuple(nodes)
        self.settings = dict(settings or {})
        self.plugstack = list(plugstack)
        self.files: dict[str, str] = {}
        self.keep_directory = keep_directory
        self._programs = _programs.find()
        self.version = self._programs.version
        self.bin = self._programs.bin
        self.directory = Path(tempfile.mkdtemp(prefix="qpu_slurm-cluster-"))
        me = pwd.getpwuid(os.geteuid()).pw_name
        self._as_root = os.geteuid() == 0
        self.users: tuple[str, ...] = ("nobody", "daemon") if self._as_root else (me,)
        self.slurm_user = "slurm" if self._as_root else me
        self._accounting = (
            Accounting(self.directory, self.slurm_user, self.munge_socket) if accounting else None
        )
        self._second_controller = second_controller
        self._daemons: Daemons | None = None
        self._clients: list[subprocess.Popen[str]] = []

    # Its files

    @property
    def conf(self) -> Path:
        """slurm.conf, the value of SLURM_CONF."""
        return self.directory / "etc" / "slurm.conf"

    @property
    def munge_socket(self) -> Path:
        """The socket of the cluster's own munged."""
        return self.directory / "munge" / "socket"

    def home(self, user: str | None = None) -> Path:
        """Return the private home directory of one of `users`, in which his jobs start."""
        return self.directory / "home" / (user or self.users[0])

    def log(self, daemon: str) -> str:
        """Return what a daemon logged.

        Args:
            daemon: `munged`, `slurmctld`, `slurmdbd`, `mariadbd` or the name of a node.
        """
        return self._started.log(daemon)

    def lost(self) -> str:
        """Say which daemon ended without having been told to, and the last lines of its log.

        Returns:
            Nothing as long as all of them run.
        """
        dead = self._started.dead()
        return f"{dead[0]} has ended. {self._last_words(dead)}" if dead else ""

    # Its life

    def start(self, timeout: float = 60) -> Self:
        """Start the daemons and wait until every node is idle.

        Args:
            timeout: Seconds to wait for that.

        Raises:
            SlurmError: A daemon ended (the message has the end of its log), or the time was over.
        """
        try:
            port = self.settings.setdefault("SlurmctldPort", str(_configuration.free_port()))
            self._daemons = Daemons(
                self.directory,
                self._programs,
                [node.name for node in self.nodes],
                configless=[node.name for node in self.nodes if node.configless],
                server=f"127.0.0.1:{port}",
                more=(self._accounting.argv if self._accounting else {})
                | (two_controllers(self.directory, self._programs) if self._second_controller else {}),
                keep_directory=self.keep_directory,
            )
            _configuration.make_directories(
                self.directory,
                {self.directory / name: self.slurm_user for name in ("log", "run", "state")}
                | {self.home(user): user for user in self.users},
            )
            _configuration.write(
                self.directory,
                version=self.version,
                slurm_user=self.slurm_user,
                slurmd_user="root" if self._as_root else self.slurm_user,
                nodes=self.nodes,
                settings=(self._accounting.settings if self._accounting else {}) | self.settings,
                plugstack=self.plugstack,
                second_controller=self._second_controller,
            )
            for name, text in self.files.items():
                (self.conf.parent / name).write_text(text)
            deadline = Deadline.after(timeout)
            self._daemons.start("munged")
            self._wait_until("munged listens", lambda: self._started.listens("munged"), deadline)
            if self._accounting:
                self._start_accounting(self._accounting, deadline)
            # One after the other: the second one reads what the first one has written.
            for daemon in CONTROLLERS if self._second_controller else CONTROLLERS[:1]:
                self._daemons.start(daemon)
                self._wait_until(f"{daemon} listens", partial(self._started.listens, daemon), deadline)
            for node in self.nodes:
                self._daemons.start(node.name)
            self._wait_until("all nodes are idle", self._all_idle, deadline)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Cancel the jobs, wait for their end, and end every process; remove the directory."""
        if self._daemons is None:
            if not self.keep_directory:
                shutil.rmtree(self.directory, ignore_errors=True)
            return
        try:
            # A cluster whose slurmctld or munged is dead has nobody to ask.
            if self._daemons.alive("slurmctld") and self._daemons.alive("munged"):
                with suppress(subprocess.TimeoutExpired, SlurmError):
                    self.cancel_jobs()
        finally:
            self._daemons.close()
            self._daemons = None
            for client in self._clients:
                with client:
                    pass  # it was ended as well: leaving closes its pipes and collects it
            self._clients.clear()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def kill(self, daemon: str, number: int = signal.SIGKILL, timeout: float = 30) -> None:
        """Send a daemon a signal that ends it, and wait until it is gone.

        Args:
            daemon: `munged`, `slurmctld` or the name of a node (its slurmd).
            number: The signal.
            timeout: Seconds to wait.
        """
        self._started.kill(daemon, number, timeout)

    def launch(self, daemon: str) -> None:
        """Start a daemon that was killed, and do not wait for it; see `restart`."""
        self._started.start(daemon)

    def restart(self, daemon: str, timeout: float = 60) -> None:
        """Start a daemon that was killed, or stop it first; wait until it answers.

        After a restart of slurmctld the nodes are `unknown` for some seconds; see `wait_until_idle`.

        Args:
            daemon: `munged`, `slurmctld` or the name of a node.
            timeout: Seconds to wait.
        """
        self._started.stop(daemon, timeout)
        self._started.start(daemon)

        def answers() -> bool:
            if daemon in {"munged", *CONTROLLERS}:
                return self._started.listens(daemon)
            return self.node_states()[daemon] in {"idle", "mixed", "allocated"}

        self._wait_until(f"{daemon} answers", answers, Deadline.after(timeout))

    def take_over(self, timeout: float = 60) -> None:
        """Have the second controller take over in order; the first one ends, until `restart`."""
        self.ask("scontrol", "takeover")
        self._started.ended(CONTROLLERS[0], timeout)
        self._wait_until("the second controller answers", self._answers, Deadline.after(timeout))

    def _answers(self) -> bool:
        return self.run(["sinfo", "--noheader"], user=self.slurm_user).returncode == 0

    def start_what_is_down(self) -> None:
        """Start the daemons that were killed and not started again; wait until they answer."""
        for daemon in self._started.down():
            self.restart(daemon)

    def wait_until_idle(self, timeout: float = 60) -> None:
        """Wait until every node is idle: no job, and none drained or down."""
        self._wait_until("all nodes are idle", self._all_idle, Deadline.after(timeout))

    # What users do with it

    def popen(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        pass_fds: Collection[int] = (),
    ) -> subprocess.Popen[str]:
        """Start a program as a user of the cluster, in his home, in a clean environment with SLURM_CONF.

        It leads a session of its own, so that `os.killpg` reaches all that it starts.

        Args:
            argv: The program and its arguments.
            user: One of `users`, or any account if the cluster was started by root.
            env: Further variables.
            stdin: As `subprocess.Popen` takes it.
            pass_fds: Likewise.
        """
        process = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=pass_fds,
            **self._place(user, env),
        )
        # Those that nobody has taken leave of, by `with` or `communicate`: `stop` does it.
        self._clients = [client for client in self._clients if client.stdout and not client.stdout.closed]
        self._clients.append(process)
        return process

    def call(
        self, argv: Sequence[str], *, user: str | None = None, env: Mapping[str, str] | None = None
    ) -> int:
        """Run a program as `popen` does, on this process's own terminal; return its exit code."""
        return subprocess.run(argv, check=False, **self._place(user, env)).returncode

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        timeout: float = 180,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as a user of the cluster until it ends; see `popen`.

        Args:
            argv: The program and its arguments.
            user: One of `users`, or any account if the cluster was started by root.
            env: Further variables.
            stdin: What it can read.
            timeout: Seconds after which it is killed, with all that it started.

        Raises:
            subprocess.TimeoutExpired: It took longer.
        """
        with self.popen(argv, user=user, env=env, stdin=subprocess.PIPE) as process:
            try:
                output, errors = process.communicate(stdin, timeout)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(list(argv), process.returncode, output, errors)

    def ask(self, *argv: str) -> str:
        """Run one of Slurm's commands as SlurmUser; where slurmctld does not answer just then, again.

        Args:
            argv: The command and its arguments; it must be harmless to repeat.

        Returns:
            What it printed.

        Raises:
            SlurmError: It failed, there was no answer for a while, or a daemon has ended: then with the end
                of its log.
        """
        deadline = Deadline.after(_PATIENCE)
        while True:
            try:
                answer = self.run(argv, user=self.slurm_user, timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                trouble, again = f"no answer within {_PATIENCE:g} s", True
            else:
                if answer.returncode == 0:
                    return answer.stdout
                trouble, again = answer.stderr.strip(), bool(NO_ANSWER.search(answer.stderr))
            lost = self.lost()
            if lost or not again or deadline.passed:
                raise SlurmError(f"{argv[0]}: {trouble}\n{lost}".strip())
            time.sleep(0.2)

    def submit(
        self, job: str | Sequence[str], *, user: str | None = None, env: Mapping[str, str] | None = None
    ) -> int:
        """Submit a batch job.

        Args:
            job: A script's text, or sbatch's arguments.
            user: See `run`.
            env: See `run`.

        Returns:
            The job's id (a heterogeneous job's leader).

        Raises:
            SlurmError: sbatch refused it; the message is sbatch's.
        """
        arguments, script = ((), job) if isinstance(job, str) else (job, "")
        sbatch = self.run(["sbatch", "--parsable", *arguments], user=user, env=env, stdin=script)
        if sbatch.returncode:
            raise SlurmError(sbatch.stderr.strip())
        return int(sbatch.stdout)

    def wait(self, job_id: int, timeout: float = 200) -> str:
        """Wait until a job is over, its epilogs included.

        Args:
            job_id: The job; a heterogeneous job's leader stands for all of it.
            timeout: Seconds to wait.

        Returns:
            The job's state in Slurm's long words; if a heterogeneous job's components differ, the first
            that is not COMPLETED.

        Raises:
            SlurmError: It was not over in time.
        """
        states: list[str] = []

        def over() -> bool:
            states[:] = self._squeue("--states=all", f"--jobs={job_id}", "--format=%T")
            return bool(states) and all(_OVER.fullmatch(state) for state in states)

        self._wait_until(f"job {job_id} is over", over, Deadline.after(timeout))
        return next((state for state in states if state != "COMPLETED"), "COMPLETED")

    def cancel_jobs(self, timeout: float = 60) -> None:
        """Cancel every user's jobs, and wait until all are over.

        Args:
            timeout: Seconds to wait.
        """
        # By their ids, since scancel's --user refuses `nobody` from Slurm 26.05 on. `7+1` and `7_1` are parts
        # of job 7, and a component that still waits cannot be cancelled by itself.
        if jobs := {re.split("[+_]", job)[0] for job in self._squeue("--format=%i")}:
            self.ask("scancel", "--quiet", *jobs)
        over = Deadline.after(timeout)
        self._wait_until("all jobs are over", lambda: not self._squeue("--format=%A"), over)

    def output(self, job_id: int) -> str:
        """Return what a batch job wrote to its output file so far."""
        path = re.search(r"^   StdOut=(.+)$", self.ask("scontrol", "show", "job", str(job_id)), re.MULTILINE)
        if path is None:
            raise SlurmError(f"Slurm knows no output file of job {job_id}.")
        try:
            return Path(path[1].replace("%j", str(job_id))).read_text(errors="replace")
        except FileNotFoundError:  # it has not started yet
            return ""

    def node_states(self) -> dict[str, str]:
        """Return each node's state in Slurm's words, such as `idle` or `drained`."""
        sinfo = self.ask("sinfo", "--noheader", "--Node", "--format=%N %T")
        return dict(line.split() for line in sinfo.splitlines())

    # How it is done

    @property
    def _started(self) -> Daemons:
        if self._daemons is None:
            raise SlurmError("The cluster is not started.")
        return self._daemons

    def _place(self, user: str | None, env: Mapping[str, str] | None) -> dict[str, Any]:
        """Say as whom, where and in which environment a user's program is run, in Popen's words."""
        name = user or self.users[0]
        account = pwd.getpwnam(name)
        home = str(self.home(name)) if name in self.users else account.pw_dir
        return {
            "cwd": home if name in self.users else "/",
            "env": {
                "HOME": home,
                "LANG": "C.UTF-8",
                "LOGNAME": name,
                "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin",
                "SHELL": "/bin/sh",
                "SLURM_CONF": str(self.conf),
                # What jobs leave behind goes with the cluster.
                **({"TMPDIR": home} if name in self.users else {}),
                "USER": name,
                _keeper.MARK: str(self.directory),
                **(env or {}),
            },
            # Only root may become somebody else.
            "user": account.pw_uid if self._as_root else None,
            "group": account.pw_gid if self._as_root else None,
            "extra_groups": [] if self._as_root else None,
        }

    def _start_accounting(self, accounting: Accounting, deadline: Deadline) -> None:
        accounting.make()
        for daemon in accounting.argv:
            self._started.start(daemon)
            self._wait_until(f"{daemon} listens", partial(self._started.listens, daemon), deadline)
            if daemon == DATABASE:
                accounting.make_database()
        self.ask("sacctmgr", "--immediate", "add", "cluster", "lab")

    def _all_idle(self) -> bool:
        states = self.node_states()
        return len(states) == len(self.nodes) and set(states.values()) == {"idle"}

    def _wait_until(self, what: str, happened: Callable[[], bool], deadline: Deadline) -> None:
        while not happened():
            dead = self._started.dead()
            if not dead and not deadline.passed:
                time.sleep(0.05)
                continue
            reason = f"{dead[0]} has ended" if dead else "the time is over"
            raise SlurmError(f"Waited until {what}, but {reason}. {self._last_words(dead)}")

    def _last_words(self, dead: list[str]) -> str:
        culprit = dead[0] if dead else "slurmctld"
        return "\n".join([f"{culprit} said last:", *self.log(culprit).splitlines()[-15:]])

    def _squeue(self, *arguments: str) -> list[str]:
        return self.ask("squeue", "--noheader", *arguments).split()
