# SPDX-License-Identifier: Apache-2.0
"""Whatever the admin writes loads, or is a ConfigError; durations and names are what they say."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qpu_slurm.config import load
from qpu_slurm.errors import ConfigError
from qpu_slurm.names import QPU_NAME
from qpu_slurm.system.durations import parse_duration

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"

# A test's directory serves all of its examples.
one_directory = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def problems(path: Path) -> tuple[str, ...]:
    """Return what is wrong with a file: each a sentence on one line, that names the file."""
    try:
        assert load(path).qpus
    except ConfigError as error:
        found = error.problems
    else:
        return ()
    assert found
    assert all(problem.startswith(f"{path}: ") and "\n" not in problem for problem in found)
    return found


def written(seconds: int) -> str:
    """Write a duration, such as 1h30m."""
    text = ""
    for letter, unit in {"d": 86_400, "h": 3_600, "m": 60, "s": 1}.items():
        number, seconds = divmod(seconds, unit)
        text += f"{number}{letter}" if number else ""
    return text or "0s"


@given(st.integers(0, 10**9))
def test_a_duration_is_read_as_it_is_written(seconds: int) -> None:
    assert parse_duration(written(seconds)) == seconds


@given(st.text(st.sampled_from("0123456789dhms .-\u0663"), max_size=12))
@example("")
@example("1s1m")
@example("1h1h")
@example("\u0663s")
@example("9" * 10 + "s")
def test_a_duration_is_a_number_of_seconds_or_an_error(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert parse_duration(written(seconds)) == seconds
    assert text.isascii()


@given(st.from_regex(QPU_NAME) | st.from_regex(QPU_NAME, fullmatch=True))
@one_directory
def test_a_name_is_a_name_here_as_in_the_option(tmp_path: Path, name: str) -> None:
    escaped = "".join(f"\\U{ord(character):08x}" for character in name)
    path = tmp_path / "config.toml"
    path.write_text(f'[[qpu]]\nname = "{escaped}"\ninstance = "{CRN}"')
    if QPU_NAME.fullmatch(name):
        assert list(load(path).qpus) == [name]
    else:
        assert len(problems(path)) == 1


WORDS = [
    "journal",
    "log",
    "log_level",
    "acquire_on",
    "slurm",
    "outage",
    "defaults",
    "qpu",
    "name",
    "instance",
    "backend",
    "endpoint",
    "credentials",
    "key_file",
    "api_key",
    "mode",
    "max_ttl",
    "task_timeout",
    "conf",
    "timeout",
    "delay",
    "tries",
]
LIKELY = [CRN, "ibm_fez", "shared", "user", "batch", "1h", "/x", "http://x/y", "http://[::]", "debug"]

keys = st.sampled_from(WORDS)
scalars = (
    st.sampled_from(LIKELY)
    | st.text(max_size=5)
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.datetimes()
    | st.dates()
    | st.times()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | st.text(max_size=3), inner),
    max_leaves=12,
)
documents = st.dictionaries(keys, values) | st.fixed_dictionaries(
    {"qpu": st.lists(st.dictionaries(keys, scalars | values), max_size=3)},
    optional={"slurm": values, "outage": values, "defaults": values, "journal": values},
)


@given(documents)
@one_directory
def test_any_document_loads_or_is_a_configuration_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: dict[str, Any]
) -> None:
    path = tmp_path / "config.toml"
    path.touch()
    monkeypatch.setattr(tomllib, "loads", lambda _: document)
    problems(path)


@given(st.text(st.sampled_from('[]{}"=.,#\n \\u0x1eqpuname_'), max_size=80) | st.text(max_size=40))
@one_directory
def test_any_text_loads_or_is_a_configuration_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert problems(path)
