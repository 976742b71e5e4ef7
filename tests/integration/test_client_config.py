# SPDX-License-Identifier: Apache-2.0
"""The client's own reader of config.toml says what tomllib says, or that it does not know."""

from __future__ import annotations

import subprocess
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from qpu_slurm.system.durations import parse_duration
from tests.integration.client import make

if TYPE_CHECKING:
    from pathlib import Path

HEADERS = (
    *("[gateway]", "[slurm]", "[outage]", "[defaults]", "[[qpu]]"),
    *("[other]", '[other."gate.way"]', "[[list]]"),
)

STRINGS = st.sampled_from(
    [
        '"http://controller:8470"',
        "'https://[::1]'",
        '"/etc/ca.pem"',
        "'/run/munge'",
        '"gateway"',
        "'user'",
        '"1h30m"',
        '"\\"[gateway]\\""',
        "'''\n[gateway]\nurl = \"http://no\"\n'''",
        '"""\\\n  x\\""""',
        '""""two"""""',
        "''''''",
        '"\\u00e9é"',
    ]
)
OTHERS = st.sampled_from(
    [
        "60",
        "1_000",
        "0x1F",
        "-1.5e3",
        "inf",
        "true",
        "1979-05-27 07:32:00Z",
        "07:32:00.5",
        "[]",
        "[ # ]\n 1, '[gateway]', [[2]],\n]",
        "{}",
        '{ url = "http://no", a.b = [1] }',
    ]
)
KEYS = st.sampled_from(
    [
        *("url", "ca", "munge_socket", "acquire_timeout", "credentials", "name", '"url"', "url.x"),
        *("'a.b'", "a.b", "a . b", "x-1"),
    ]
)
SPACES = st.sampled_from(["", " ", "\t", "  "])
ENDS = st.sampled_from(["\n", "\r\n", "\n\n", " # [gateway]\n", "\t#\r\n"])


@st.composite
def lines(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        return draw(SPACES) + draw(st.sampled_from(HEADERS)) + draw(ENDS)
    return draw(SPACES) + draw(KEYS) + draw(SPACES) + "=" + draw(SPACES) + draw(STRINGS | OTHERS) + draw(ENDS)


GOOD = '[gateway]\nurl = "http://controller:8470"\n[defaults]\ncredentials = "gateway"\n[[qpu]]\n'

TEXTS = st.builds("".join, st.lists(lines(), max_size=8)) | st.builds(
    lambda before, after: before + GOOD + after,
    st.builds("".join, st.lists(lines(), max_size=3)),
    st.builds("".join, st.lists(lines(), max_size=5)),
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    text: str = draw(TEXTS)
    at = draw(st.integers(0, len(text)))
    other: str = draw(st.sampled_from(["", *"\"'[]#=\\\n{,é"]))
    return text[:at] + other + text[at + 1 :]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("reader") / "read_config"
    make(program.parent, str(program))
    return program


def expected(document: dict[str, Any]) -> list[object]:
    """Say what the client has to have read of a document that it understood."""
    gateway, slurm, defaults = (document.get(name, {}) for name in ("gateway", "slurm", "defaults"))
    timeout = document.get("outage", {}).get("acquire_timeout", 60)
    credentials = [qpu.get("credentials", defaults.get("credentials")) for qpu in document.get("qpu", [])]
    return [
        gateway["url"],
        gateway.get("ca", ""),
        slurm.get("munge_socket", ""),
        timeout if isinstance(timeout, int) else parse_duration(timeout),
        bool(credentials) and set(credentials) == {"gateway"},
    ]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS | damaged())
def test_what_the_client_reads_is_what_python_reads(reader: Path, text: str) -> None:
    done = subprocess.run([reader], input=text.encode(), capture_output=True, timeout=60, check=False)
    assert done.returncode in {0, 1}, done.stderr.decode()
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        # Python says what is wrong with it, when it reads it.
        assume(done.returncode == 1)
        return
    if done.returncode:
        return
    url, ca, munge_socket, seconds, keys = done.stdout.decode().splitlines()
    assert [url, ca, munge_socket, int(seconds), keys == "1"] == expected(document)


def test_the_usual_files_are_understood(reader: Path) -> None:
    usual = (
        'log = "/var/log/q.log"\n[slurm]\nmunge_socket = "/run/m"\n[outage]\nacquire_timeout = "2m"\n'
        '[gateway]\nurl = "https://c:1"\nca = "/etc/ca.pem"\ntrusted_users = ["slurm"]\n'
        '[defaults]\ncredentials = "gateway"\nkey_file = "/k"\n[[qpu]]\nname = "a"\n'
    )
    done = subprocess.run([reader], input=usual.encode(), capture_output=True, timeout=60, check=True)
    assert done.stdout.decode().splitlines() == ["https://c:1", "/etc/ca.pem", "/run/m", "120", "1"]
