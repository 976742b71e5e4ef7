# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import string
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from qpu_slurm.errors import ConfigError
from qpu_slurm.gateway.gateway import KnownTasks
from qpu_slurm.gateway.ibm.tokens import BadTokenError, Tokens
from qpu_slurm.gateway.keys import PREFIX, JobKeys
from qpu_slurm.journal.model import Lease, LeaseState

if TYPE_CHECKING:
    from pathlib import Path

KEYS = JobKeys(bytes(range(32)))

LEASE = Lease(
    id=7,
    job_id=4711,
    user_id=1000,
    qpu="ibm_fez",
    state=LeaseState.HELD,
    session_id="s",
    created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    acquired_at=None,
    expires_at=None,
    ended_at=None,
    reason="",
)

leases = st.builds(
    lambda id_, job_id, user_id, created_at: structs.replace(
        LEASE, id=id_, job_id=job_id, user_id=user_id, created_at=created_at
    ),
    st.integers(1, 2**63 - 1),
    st.integers(1, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.datetimes(timezones=st.just(UTC)),
)


@given(leases)
def test_a_key_tells_its_lease_and_opens_it(lease: Lease) -> None:
    key = KEYS.key(lease).reveal()
    assert set(key) <= set(string.ascii_letters + string.digits + "-_")
    assert JobKeys.lease_id(key) == lease.id
    assert KEYS.opens(key, lease)
    assert KEYS.key(structs.replace(lease, state=LeaseState.RELEASED, reason="x")).reveal() == key


@given(leases, leases)
def test_a_key_opens_no_other_lease(lease: Lease, other: Lease) -> None:
    same = all(getattr(lease, n) == getattr(other, n) for n in ("id", "job_id", "user_id", "created_at"))
    assert KEYS.opens(KEYS.key(lease).reveal(), other) is same
    assert not JobKeys(b"x" * 32).opens(KEYS.key(lease).reveal(), lease)


@pytest.mark.parametrize("name", ["id", "job_id", "user_id", "created_at"])
def test_every_part_of_what_makes_a_lease_counts(name: str) -> None:
    other = LEASE.created_at.replace(microsecond=0) if name == "created_at" else getattr(LEASE, name) + 1
    assert not KEYS.opens(KEYS.key(LEASE).reveal(), structs.replace(LEASE, **{name: other}))


@given(st.text() | st.text(string.ascii_letters + "-_").map(PREFIX.__add__))
def test_what_is_no_key_opens_nothing(text: str) -> None:
    number = JobKeys.lease_id(text)
    assert number is None or (0 <= number < 2**63 and not KEYS.opens(text, LEASE))


def test_the_secret_is_made_once_and_for_nobody_else(tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.append(JobKeys.beside(journal).key(LEASE).reveal()))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [JobKeys.beside(journal).key(LEASE).reveal()] * 8
    (secret,) = tmp_path.iterdir()
    assert (secret.name, secret.stat().st_mode & 0o777, secret.stat().st_size) == (
        "journal.sqlite.secret",
        0o600,
        32,
    )


@pytest.mark.parametrize(
    ("content", "mode", "why"), [(b"short", 0o600, "damaged"), (b"x" * 32, 0o640, "others can")]
)
def test_a_secret_that_is_none_is_not_used(tmp_path: Path, content: bytes, mode: int, why: str) -> None:
    secret = tmp_path / "journal.sqlite.secret"
    secret.write_bytes(content)
    secret.chmod(mode)
    with pytest.raises(ConfigError, match=why):
        JobKeys.beside(tmp_path / "journal.sqlite")


def test_a_rotated_secret_ends_no_job_until_the_next_rotation(tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    first = JobKeys.beside(journal)
    assert JobKeys.kept_since(journal) is None
    JobKeys.rotate(journal)
    second = JobKeys.beside(journal)
    assert second.key(LEASE).reveal() != first.key(LEASE).reveal()
    assert second.opens(first.key(LEASE).reveal(), LEASE)
    token = str(Tokens(first).answer(LEASE)["access_token"])
    assert Tokens(second).lease(token)[0] == LEASE.id
    since = JobKeys.kept_since(journal)
    assert since is not None
    assert abs((datetime.now(UTC) - since).total_seconds()) < 60

    JobKeys.rotate(journal)
    third = JobKeys.beside(journal)
    assert third.opens(second.key(LEASE).reveal(), LEASE)
    assert not third.opens(first.key(LEASE).reveal(), LEASE)
    with pytest.raises(BadTokenError):
        Tokens(third).lease(token)
    JobKeys.rotate(journal, forget=True)
    assert not JobKeys.beside(journal).opens(third.key(LEASE).reveal(), LEASE)
    assert [(path.name, path.stat().st_mode & 0o777) for path in tmp_path.iterdir()] == [
        ("journal.sqlite.secret", 0o600)
    ]


def test_a_directory_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made"):
        JobKeys.beside(tmp_path / "file" / "journal.sqlite")


@given(leases)
def test_a_token_tells_its_lease(lease: Lease) -> None:
    token = str(Tokens(KEYS).answer(lease)["access_token"])
    assert Tokens(KEYS).lease(token) == (lease.id, lease.created_at.isoformat())
    with pytest.raises(BadTokenError, match="not one of"):
        Tokens(JobKeys(b"x" * 32)).lease(token)


def test_a_tokens_time_is_over_even_if_it_was_good_before(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(KEYS, seconds=60)
    answer = tokens.answer(LEASE)
    token = str(answer["access_token"])
    assert tokens.lease(token)[0] == 7
    for fresh in (tokens, Tokens(KEYS)):
        monkeypatch.setattr("time.time", lambda: float(answer["expiration"]))
        with pytest.raises(BadTokenError, match="expired"):
            fresh.lease(token)


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{1,20}\.[A-Za-z0-9_-]{1,20}\.[A-Za-z0-9_-]{0,20}"))
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(BadTokenError):
        Tokens(KEYS).lease(text)


def test_the_tasks_that_were_asked_for_last_are_known() -> None:
    tasks = KnownTasks(size=2)
    for name in ("a", "b"):
        tasks.learn("fez", name, f"session of {name}")
    assert tasks.session("fez", "a") == "session of a"
    tasks.learn("fez", "c", "session of c")
    assert [tasks.session("fez", name) for name in "abc"] == ["session of a", None, "session of c"]
    assert tasks.session("torino", "a") is None
