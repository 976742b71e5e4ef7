# SPDX-License-Identifier: Apache-2.0
"""The emulator from Python: started as a child process, asked and steered through its control endpoint."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self, TypeVar

import msgspec
import requests

from qpu_slurm.system.deadline import Deadline
from qpu_slurm_devkit.emulator.command import READY, environ, iqm_environ, system_environ
from qpu_slurm_devkit.emulator.faults import Fault
from qpu_slurm_devkit.emulator.record import Event, RequestRecord, SessionRecord, TaskRecord
from qpu_slurm_devkit.emulator.settings import Account

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from types import TracebackType

    from requests import Response

_START_SECONDS = 90
_STOP_SECONDS = 5
_REQUEST_SECONDS = 30

Items = TypeVar("Items")


class Emulator:
    """An emulator in a child process, for as long as the `with` block lasts.

    It ends with this process, however that ends: the child reads the other end of a pipe.

    Args:
        task_seconds: How long a task runs; None: as long as its simulation takes.
        interactive_ttl: Seconds that a session stays active after its last task.
        idle_ttl: Seconds that a session without a task stays open.
        accounts: Who may use it.
        backends: The QPUs it has.
        iqm_backends: Those behind IQM Server.
        result_bytes: Simulate nothing: answer every task with a made-up result of about this size.
        max_ttl: The longest life, in seconds, that a session may ask for.
        token_ttl: Seconds that an IAM token is valid.
        lanes: How many tasks of the IBM Quantum System API a QPU holds at once.
        any_circuit: Run circuits that were not transpiled for the QPU.
        lenient: Do not hold inputs against IBM's client and schemas.
        seed: Makes outcomes repeatable.
        port: The port to listen on; 0 takes a free one.
        log: Where its errors go; None: to this process's standard error.
    """

    def __init__(
        self,
        task_seconds: float | None = None,
        interactive_ttl: float = 60,
        idle_ttl: float = 1800,
        accounts: Sequence[Account] = (Account.premium(), Account.open()),
        backends: Sequence[str] = ("ibm_fez", "ibm_torino"),
        *,
        iqm_backends: Sequence[str] = ("garnet", "spark"),
        result_bytes: int | None = None,
        max_ttl: int = 28800,
        token_ttl: int = 3600,
        lanes: int = 5,
        any_circuit: bool = False,
        lenient: bool = False,
        seed: int | None = None,
        port: int = 0,
        log: Path | None = None,
    ) -> None:
        self.accounts = tuple(accounts)
        self.backends = tuple(backends)
        self.iqm_backends = tuple(iqm_backends)
        self._options: dict[str, Any] = {
            "task-seconds": task_seconds,
            "interactive-ttl": interactive_ttl,
            "idle-ttl": idle_ttl,
            "backends": ",".join(backends),
            "iqm-backends": ",".join(iqm_backends),
            "result-bytes": result_bytes,
            "max-ttl": max_ttl,
            "token-ttl": token_ttl,
            "lanes": lanes,
            "seed": seed,
            "port": port,
        }
        self._flags = ["--any-circuit"] if any_circuit else []
        self._flags += ["--lenient"] if lenient else []
        self._log = log
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[str] | None = None
        self._http = requests.Session()
        self._http.trust_env = False  # no proxy stands between us and ourselves
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The child's process id."""
        if self._process is None:
            raise RuntimeError("the emulator is not running")
        return self._process.pid

    def start(self) -> None:
        """Start it; returns when it answers.

        Raises:
            RuntimeError: It did not start; the message holds what it said.
        """
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="qpu-emulator-")))
        accounts = directory / "accounts.json"
        accounts.touch(mode=0o600)
        accounts.write_bytes(msgspec.json.encode(self.accounts))
        options = [f"--{name}={value}" for name, value in self._options.items() if value is not None]
        options += [
            f"--accounts={accounts}",
            f"--directory={directory}",
            "--until-stdin-closes",
            "--url-only",
        ]
        stderr: IO[str] | None = None
        if self._log is not None:
            stderr = self._stack.enter_context(self._log.open("a", encoding="utf-8"))
        self._process = subprocess.Popen(
            # -P: what lies in the current directory is not ours to import.
            [sys.executable, "-P", "-m", "qpu_slurm_devkit.emulator", *options, *self._flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            # A Ctrl-C in the terminal is ours to handle: we stop it when we are done.
            start_new_session=True,
        )
        # A child that hangs is killed, which ends the wait for its first line.
        deadline = threading.Timer(_START_SECONDS, self._process.kill)
        deadline.start()
        first = self._process.stdout.readline() if self._process.stdout else ""
        deadline.cancel()
        if not first.startswith(READY):
            code = self._process.wait()
            self.stop()
            raise RuntimeError(f"the emulator did not start (exit code {code}): {first}")
        self.url = first.removeprefix(READY).strip()

    def stop(self) -> None:
        """Stop it, and whatever it simulates. Stopped already is fine."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None
        self._http.close()
        self._stack.close()

    def environ(self, account: Account | None = None) -> dict[str, str]:
        """Return the variables with which `QiskitRuntimeService()` finds it.

        Args:
            account: Whose; None: its first account's.
        """
        return environ(self.url, account or self.accounts[0])

    def system_environ(self, backend: str, account: Account | None = None) -> dict[str, str]:
        """Return the variables with which qrmi finds a QPU by the IBM Quantum System API; see `environ`."""
        return system_environ(self.url, account or self.accounts[0], backend)

    def iqm_environ(self, backend: str, account: Account | None = None) -> dict[str, str]:
        """Return the variables with which iqm-client and qrmi find an IQM Server's QPU; see `environ`."""
        return iqm_environ(self.url, account or self.accounts[0], backend)

    def events(self) -> list[Event]:
        """List what happened to sessions and tasks, the oldest first."""
        return self._get("events", list[Event])

    def requests(self) -> list[RequestRecord]:
        """List the requests to the API, the oldest first."""
        return self._get("requests", list[RequestRecord])

    def sessions(self) -> list[SessionRecord]:
        """List every account's sessions, the oldest first."""
        return self._get("sessions", list[SessionRecord])

    def tasks(self) -> list[TaskRecord]:
        """List every account's tasks, the oldest first."""
        return self._get("tasks", list[TaskRecord])

    def inject(self, fault: Fault) -> None:
        """Have something go wrong."""
        self._send("POST", "faults", fault)

    def faults(self) -> list[Fault]:
        """List what is to go wrong yet: one whose `times` are used up is not among them."""
        return self._get("faults", list[Fault])

    def clear_faults(self) -> None:
        """Have nothing go wrong any more."""
        self._send("DELETE", "faults")

    def set_backend(self, name: str, status: str = "active", message: str = "") -> None:
        """Put a QPU into maintenance (`paused` or `offline`), or back to work (`active`)."""
        self._send("PUT", f"backends/{name}", {"status": status, "message": message})

    def calibrate(self, name: str, at: datetime) -> None:
        """Calibrate a QPU anew: its properties are those of before, but for their date."""
        self._send("POST", f"backends/{name}/calibrate", {"at": at.isoformat()})

    def close_session(self, session_id: str, reason: str = "Session was closed by the service.") -> None:
        """Close a session as the service does of its own accord: what waits in it fails."""
        self._send("POST", f"sessions/{session_id}/close", {"reason": reason})

    def cancel_task(self, task_id: str) -> bool:
        """Cancel a task as the service does of its own accord; return whether it was not over yet."""
        response = self._http.post(f"{self.url}/emulator/tasks/{task_id}/cancel", timeout=_REQUEST_SECONDS)
        if response.status_code != HTTPStatus.CONFLICT:
            response.raise_for_status()
        return response.ok

    def advance(self, seconds: float) -> None:
        """Move the emulator's clock forward: what would happen by then happens now."""
        self._send("POST", "advance", {"seconds": seconds})

    def refuse(self, seconds: float) -> None:
        """Refuse all connections for a while, those of this class included."""
        self._send("POST", "refuse", {"seconds": seconds})

    def reset(self) -> None:
        """Make it as new: nothing runs, nothing is recorded, nothing goes wrong, the clock is right."""
        self._send("POST", "reset")

    def wait_for(self, condition: Callable[[Emulator], object], seconds: float = 60) -> None:
        """Wait until something is so, such as `lambda e: e.sessions()[0].state == "closed"`.

        Raises:
            TimeoutError: It is not so in time.
        """
        deadline = Deadline.after(seconds)
        while not condition(self):
            if deadline.passed:
                raise TimeoutError(f"not so after {seconds:g} s")
            time.sleep(0.02)

    def _get(self, what: str, type_: type[Items]) -> Items:
        return msgspec.json.decode(self._send("GET", what).content, type=type_)

    def _send(self, method: str, what: str, body: object = None) -> Response:
        data = None if body is None else msgspec.json.encode(body)
        response = self._http.request(
            method, f"{self.url}/emulator/{what}", data=data, timeout=_REQUEST_SECONDS
        )
        response.raise_for_status()
        return response
