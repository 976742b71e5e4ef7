# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import configparser
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from qpu_slurm import errors
from qpu_slurm.config import GatewayConfig
from qpu_slurm.errors import (
    AnswerLostError,
    ConfigError,
    JournalError,
    MustWaitError,
    NoLeaseError,
    QpuSlurmError,
    RefusedError,
    RequestError,
    ServiceError,
    UnavailableError,
)
from qpu_slurm.gateway import messages
from qpu_slurm.journal.model import LeaseRequest
from qpu_slurm.system.munge import ReplayedError
from qpu_slurm.system.secret import Secret
from qpu_slurm.system.systemd import notify, watchdog_seconds

UNITS = Path(__file__).parents[2] / "contrib" / "systemd"

ERRORS = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)
]


@pytest.mark.parametrize("class_", ERRORS)
def test_every_error_is_raised_again_on_the_other_side(class_: type[QpuSlurmError]) -> None:
    status, body = messages.error_answer(class_("What happened. What to do."))
    assert status >= 400
    with pytest.raises(class_) as raised:
        messages.raise_error(status, body)
    assert type(raised.value) is class_
    assert str(raised.value) == "What happened. What to do."


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestError("x"), 400),
        (NoLeaseError("x"), 400),
        (RefusedError("x"), 403),
        (UnavailableError("x"), 503),
        (MustWaitError("x"), 503),
        (AnswerLostError("x"), 502),
        (JournalError("x"), 503),
        (ConfigError("x", "y"), 500),
        (ServiceError("x"), 500),
        (ReplayedError("x"), 500),
    ],
)
def test_errors_have_fitting_statuses(error: QpuSlurmError, status: int) -> None:
    assert messages.error_answer(error)[0] == status


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error": "x", "kind": "Brandnew"}', b"\xff", b"[]"])
def test_what_is_not_known_may_go_away(body: bytes) -> None:
    with pytest.raises(UnavailableError) as raised:
        messages.raise_error(418, body)
    assert type(raised.value) is UnavailableError


def test_several_problems_stay_several() -> None:
    with pytest.raises(ConfigError) as raised:
        messages.raise_error(*messages.error_answer(ConfigError("one", "two")))
    assert raised.value.problems == ("one", "two")


def test_a_request_carries_its_credential() -> None:
    request = LeaseRequest(
        job_id=7, user_id=1, qpus=("a",), bind=("b",), seconds_left=9, api_key=Secret("the key")
    )
    read = messages.decode(messages.encode(request), LeaseRequest)
    assert read.api_key is not None
    assert read.api_key.reveal() == "the key"
    assert (read.qpus, read.bind, read.seconds_left) == (("a",), ("b",), 9)


def test_a_signature_is_for_one_request() -> None:
    one = messages.binding("GET", "/a", b"x")
    others = [("POST", "/a", b"x"), ("GET", "/b", b"x"), ("GET", "/a", b"y"), ("GET", "/a", b"")]
    assert one == messages.binding("GET", "/a", b"x")
    assert len({one, *(messages.binding(*other) for other in others)}) == 5


def test_paths_hold_whatever_a_reason_says() -> None:
    assert (
        messages.job_leases_path(7, "a b&c=d/e?ü")
        == "/qpu-slurm/v1/jobs/7/leases?reason=a%20b%26c%3Dd%2Fe%3F%C3%BC"
    )
    assert messages.job_keys_path(7) == "/qpu-slurm/v1/jobs/7/keys"
    assert messages.job_steps_path(7) == "/qpu-slurm/v1/jobs/7/steps"
    assert messages.step_end_path(7, "batch", 1.23456) == "/qpu-slurm/v1/jobs/7/steps/batch?ago=1.235"


@pytest.mark.parametrize("address", ["path", "abstract"])
def test_the_supervisor_hears_what_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    name = str(tmp_path / "notify") if address == "path" else f"@qpu-slurm-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(name.replace("@", "\0", 1))
        supervisor.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify("READY=1")
        assert supervisor.recv(100) == b"READY=1"
    notify("STOPPING=1")  # nobody listens any more


@pytest.mark.parametrize("address", [None, "", "vsock:1:2", "/does/not/exist"])
def test_without_a_supervisor_nothing_happens(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("30000000", None, 30),
        ("30000000", "own", 30),
        ("30000000", "1", None),
        ("0", None, None),
        ("x", None, None),
        (None, None, None),
    ],
)
def test_the_watchdog_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None, seconds: float | None
) -> None:
    pid = str(os.getpid()) if pid == "own" else pid
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert watchdog_seconds() == seconds


def unit(name: str) -> configparser.ConfigParser:
    found = configparser.ConfigParser(strict=False, interpolation=None)
    found.read_string((UNITS / name).read_text())
    return found


HARDENED = {
    "nonewprivileges": "yes",
    "capabilityboundingset": "",
    "ambientcapabilities": "",
    "protectsystem": "strict",
    "protecthome": "yes",
    "privatetmp": "yes",
    "privatedevices": "yes",
    "protectclock": "yes",
    "protectcontrolgroups": "yes",
    "protecthostname": "yes",
    "protectkernellogs": "yes",
    "protectkernelmodules": "yes",
    "protectkerneltunables": "yes",
    "protectproc": "invisible",
    "procsubset": "pid",
    "lockpersonality": "yes",
    "removeipc": "yes",
    "restrictaddressfamilies": "AF_INET AF_INET6 AF_UNIX",
    "restrictnamespaces": "yes",
    "restrictrealtime": "yes",
    "restrictsuidsgid": "yes",
    "systemcallarchitectures": "native",
    "umask": "0077",
    "limitcore": "0",
}
"""What no service of ours can do without; `systemd-analyze security` rates a unit with these at 1.5."""


@pytest.mark.parametrize("name", sorted(path.name for path in UNITS.glob("*.service")))
def test_a_service_may_do_nothing_that_it_need_not(name: str) -> None:
    service = unit(name)["Service"]
    assert {key: service.get(key) for key in HARDENED} == HARDENED
    filters = re.findall(r"^SystemCallFilter=(.*)$", (UNITS / name).read_text(), re.MULTILINE)
    assert filters == ["@system-service", "~@privileged"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("name", sorted(path.name for path in UNITS.glob("*.service")))
def test_systemd_rates_a_service_as_ok(name: str) -> None:
    argv = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(UNITS / name)]
    rated = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)
    assert rated.returncode == 0, rated.stdout[-300:]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_no_mistake_in_the_units(tmp_path: Path) -> None:
    for path in UNITS.iterdir():
        # The program is there as soon as it is installed.
        (tmp_path / path.name).write_text(
            path.read_text().replace("/opt/qpu_slurm/bin/qpu-slurm", "/bin/true")
        )
    argv = [
        "systemd-analyze",
        "verify",
        "--man=no",
        "--recursive-errors=no",
        *sorted(map(str, tmp_path.iterdir())),
    ]
    verified = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)
    assert (verified.returncode, str(tmp_path) in verified.stderr) == (0, False), verified.stderr


def test_the_socket_holds_the_port_that_the_gateway_has_by_default() -> None:
    held, service = unit("qpu-slurm-gateway.socket"), unit("qpu-slurm-gateway.service")
    assert held["Socket"]["listenstream"] == GatewayConfig(url="https://controller:8470").listen
    assert held["Install"]["wantedby"] == "sockets.target"
    # Started with the service, enabled with it, and no reason for it not to start.
    assert "qpu-slurm-gateway.socket" in service["Unit"]["wants"].split()
    assert service["Install"]["also"] == "qpu-slurm-gateway.socket"
    assert "requires" not in service["Unit"]


def test_systemds_unit_says_what_the_gateway_needs() -> None:
    service = unit("qpu-slurm-gateway.service")["Service"]
    assert (service["type"], service["notifyaccess"], service["restart"]) == ("notify", "main", "always")
    assert service["execstart"].endswith("/qpu-slurm gateway")
    assert float(service["watchdogsec"]) > 0
    assert (service["nonewprivileges"], service["capabilityboundingset"]) == ("yes", "")


def test_a_timer_reaps_where_there_is_no_gateway() -> None:
    # Its service is the one of its name, unless it says otherwise.
    timer, service = unit("qpu-slurm-reap.timer"), unit("qpu-slurm-reap.service")["Service"]
    assert "unit" not in timer["Timer"]
    assert timer["Timer"]["onunitinactivesec"] == "1min"
    assert timer["Install"]["wantedby"] == "timers.target"
    assert (service["type"], service["user"]) == ("oneshot", "slurm")
    assert service["execstart"].endswith("/qpu-slurm reap")
    assert "/var/lib/qpu_slurm" in service["readwritepaths"].split()
