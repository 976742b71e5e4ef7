# SPDX-License-Identifier: Apache-2.0
"""Logs: JSON, one event a line, whole lines from many processes, and no credential in any of them."""

from __future__ import annotations

import json
import logging
import socket
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qpu_slurm.errors import ConfigError
from qpu_slurm.system import logs
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "k3y/of+somebody"
AS_FORM = "k3y%2Fof%2Bsomebody"
JWT = "eyJhbGciOiJub25lIn0.eyJpYXQiOjF9.c2ln"


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Log to a file, at the debug level, as long as a test lasts."""
    handlers, level = logging.root.handlers[:], logging.root.level
    path = tmp_path / "log"
    logs.configure("debug", path)
    yield path
    logs.configure("debug")  # to stderr, and to no system's log
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line(path: Path) -> None:
    structlog.get_logger().info("session_opened", job_id=7, qpu="ibm_fez", ratio=0.5, done=True, none=None)
    (line,) = lines(path)
    time = datetime.fromisoformat(line.pop("timestamp"))
    assert abs((datetime.now(UTC) - time).total_seconds()) < 60
    assert line == {
        "event": "session_opened",
        "level": "info",
        "job_id": 7,
        "qpu": "ibm_fez",
        "ratio": 0.5,
        "done": True,
        "none": None,
    }
    assert stat.S_IMODE(path.stat().st_mode) & ~0o640 == 0


def test_levels(path: Path) -> None:
    logs.configure("warning", path)
    structlog.get_logger().info("no")
    logging.getLogger("urllib3").info("no")
    structlog.get_logger().warning("yes")
    assert [line["event"] for line in lines(path)] == ["yes"]


def test_the_standard_library_logs_the_same_way(path: Path) -> None:
    fields = {"request": "GET /x", "api_key": KEY}
    logging.getLogger("qpu_slurm.x").warning("%s again", "GET", extra={"fields": fields})
    (line,) = lines(path)
    assert (line["event"], line["level"], line["logger"]) == ("GET again", "warning", "qpu_slurm.x")
    assert (line["request"], line["api_key"]) == ("GET /x", "***")


def fail() -> None:
    raise ValueError(f"the key is {KEY}")


def log_exception() -> None:
    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("failed")


LEAKS: dict[str, Callable[[], object]] = {
    "a secret": lambda: structlog.get_logger().debug("x", what=Secret("another")),
    "a secret in a list": lambda: structlog.get_logger().debug("x", what=[{"a": (Secret("another"),)}]),
    "the key": lambda: structlog.get_logger().debug("x", what=f"with {KEY} in it"),
    "the key in an event": lambda: structlog.get_logger().debug(f"with {KEY} in it"),
    "the key in a form": lambda: structlog.get_logger().debug("x", body=f"grant=x&apikey={AS_FORM}"),
    "the key in bytes": lambda: structlog.get_logger().debug("x", body=KEY.encode()),
    "the key in a name": lambda: structlog.get_logger().debug("x", **{KEY: 1}),
    "the key in an object": lambda: structlog.get_logger().debug("x", what=ValueError(KEY)),
    "the key deep down": lambda: structlog.get_logger().debug("x", what=[[[[[[[[[[[[KEY]]]]]]]]]]]]),
    "an exception": log_exception,
    "urllib3": lambda: logging.getLogger("urllib3.connectionpool").debug("POST %s", AS_FORM),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_no_credential_is_logged(path: Path, leak: str) -> None:
    held = Secret(KEY)
    LEAKS[leak]()
    text = path.read_text()
    assert text.count("\n") == 1
    for secret in (held.reveal(), AS_FORM, "another"):
        assert secret not in text
    assert "***" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Authorization: Bearer {JWT}", "Authorization: ***"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: ***"),
        ("{'Authorization': 'Bearer abc'}", "{'Authorization': '***'}"),
        (f"got {JWT}, then", "got ***, then"),
        (
            '"PUT /s3/b/k?X-Amz-Date=2&X-Amz-Signature=ab12 HTTP/1.1"',
            '"PUT /s3/b/k?X-Amz-Date=2&X-Amz-Signature=*** HTTP/1.1"',
        ),
        ("Signature:\nab12", "Signature:\n***"),
        ('{"access_token": "abc", "expires_in": 3}', '{"access_token": "***", "expires_in": 3}'),
        ("grant_type=x&apikey=abc&y=z", "grant_type=x&apikey=***&y=z"),
        ("QISKIT_IBM_TOKEN=abc QISKIT_IBM_URL=https://x", "QISKIT_IBM_TOKEN=*** QISKIT_IBM_URL=https://x"),
        ("the session of job 7 was opened", "the session of job 7 was opened"),
        (
            "POST https://host/identity/token: [Errno 111] Connection refused",
            "POST https://host/identity/token: [Errno 111] Connection refused",
        ),
        (
            "the token: [SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired",
            "the token: [SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired",
        ),
        (
            "the secret: [Errno -2] Name or service not known",
            "the secret: [Errno -2] Name or service not known",
        ),
        ("token: [abc]", "token: ***"),
        ("token=[Errno]abc", "token=***"),
    ],
)
def test_what_looks_like_a_credential_is_hidden(path: Path, text: str, expected: str) -> None:
    structlog.get_logger().info(text)
    assert lines(path)[0]["event"] == expected


@pytest.mark.parametrize(
    "name", ["api_key", "apikey", "IAM_APIKEY", "token", "Authorization", "password", "cookie"]
)
def test_a_field_named_like_a_credential_is_hidden(path: Path, name: str) -> None:
    structlog.get_logger().info("x", **{name: "abc"}, headers={name: ["abc"]})
    assert lines(path)[0][name] == "***"
    assert lines(path)[0]["headers"] == {name: "***"}


def test_a_secret_that_is_gone_is_no_longer_looked_for(path: Path) -> None:
    Secret("ordinary-word")
    structlog.get_logger().info("an ordinary-word")
    assert lines(path)[0]["event"] == "an ordinary-word"


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.datetimes(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters()) | st.integers(), inner)
        | st.sets(st.text())
    ),
    max_leaves=8,
)


# The first input of a process takes long: Hypothesis makes its tables of characters for it.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.text(st.characters()), anything), st.text(st.characters()))
def test_anything_can_be_logged(fields: dict[str, Any], event: str) -> None:
    line = msgspec.json.encode(logs.redact(None, "info", {**fields, "event": event}))
    assert b"\n" not in line


def test_a_text_is_not_logged_at_any_length(path: Path) -> None:
    structlog.get_logger().info("x", answer="a" * (1 << 20))
    assert len(path.read_bytes()) < 10_000


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        logs.configure("info", tmp_path / "nowhere" / "log")


def test_a_full_disk_does_not_matter(path: Path) -> None:
    assert path.exists()
    logs.configure("info", type(path)("/dev/full"))
    structlog.get_logger().info("lost")


WRITER = """
import sys, structlog
from pathlib import Path
from qpu_slurm.system import logs
logs.configure("info", Path(sys.argv[1]))
for number in range(200):
    structlog.get_logger().info("x" * 5000, number=number)
"""


def test_many_processes_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert sorted(line["number"] for line in lines(path)) == sorted([*range(200)] * 3)


def test_a_file_that_was_moved_away_is_made_again(tmp_path: Path, path: Path) -> None:
    """As logrotate has it; no descriptor is left behind."""
    log = structlog.get_logger()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(20):
        log.info("x", number=number)
        path.rename(tmp_path / f"log.{number}")
        logs.configure("debug", path)
    log.info("x", number=20)
    moved = [lines(tmp_path / f"log.{number}")[0]["number"] for number in range(20)]
    assert (moved, lines(path)[0]["number"]) == (list(range(20)), 20)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_log_that_cannot_be_reopened_goes_on_where_it_was(tmp_path: Path, path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        logs.configure("debug", tmp_path)
    structlog.get_logger().info("x")
    assert [line["event"] for line in lines(path)] == ["x"]


def test_no_level_leaves_the_audit_out(path: Path) -> None:
    logs.configure("error", path)
    held = Secret(KEY)
    structlog.get_logger().info("no")
    logs.audit("task submitted", user_id=1000, job_id=7, api_key="abc", why=f"with {held.reveal()}")
    (line,) = lines(path)
    assert (line["event"], line["audit"], line["user_id"], line["job_id"]) == (
        "task submitted",
        True,
        1000,
        7,
    )
    assert (line["api_key"], line["why"]) == ("***", "with ***")


def test_the_audit_goes_to_the_systems_log_too(tmp_path: Path, path: Path) -> None:
    address = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(address))
        daemon.settimeout(10)
        logs.configure("info", path, address)
        structlog.get_logger().info("an ordinary event")
        logs.audit("task submitted", user_id=1000, bytes=12)
        told = daemon.recv(10_000).decode()
    priority, _, text = told.partition("qpu-slurm: ")
    assert priority == "<86>"  # authpriv.info
    assert json.loads(text.rstrip("\0")) == lines(path)[1]
    assert [line["event"] for line in lines(path)] == ["an ordinary event", "task submitted"]


@pytest.mark.parametrize("kind", ["away", "stuck"])
def test_a_system_log_that_takes_nothing_stops_nobody(tmp_path: Path, path: Path, kind: str) -> None:
    address = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        if kind == "stuck":
            daemon.bind(str(address))
        logs.configure("info", path, address)
        for number in range(5_000):
            logs.audit("task submitted", number=number)
    assert len(lines(path)) == 5_000


def test_stderr_is_the_default() -> None:
    program = (
        "import structlog\n"
        "from qpu_slurm.system import logs\n"
        "logs.configure()\n"
        "structlog.get_logger().info('x')"
    )
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ran.stdout == ""
    assert json.loads(ran.stderr)["event"] == "x"
