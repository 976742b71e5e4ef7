# SPDX-License-Identifier: Apache-2.0
"""What steps tell the gateway: that they start, for which they get the job's keys, and that they are over."""

from __future__ import annotations

import sqlite3
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.gateway import messages
from tests.integration.test_gateway_control import OTHERS, ask, credential, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qpu_slurm.journal.history import Step
    from qpu_slurm.journal.model import Lease
    from tests.integration.gateway_site import Site

START = messages.StepStart(step="0", name="task_runner", seconds_ago=2.5)


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for what the gateway does when it has answered."""
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def steps(site: Site, lease: Lease) -> dict[str, Step]:
    with change(site) as db:
        (run,) = db.execute("SELECT run FROM leases WHERE id = ?", (lease.id,)).fetchone()
    return {step.step: step for step in site.journal.history.steps(lease.job_id, run)}


def change(site: Site) -> sqlite3.Connection:
    return sqlite3.connect(site.config.journal, isolation_level=None)


def is_about(moment: datetime | None, ago: float) -> bool:
    return moment is not None and abs(datetime.now(UTC) - timedelta(seconds=ago) - moment) < timedelta(
        seconds=9
    )


def test_a_step_that_starts_gets_its_jobs_keys_and_is_written_down(site: Site) -> None:
    lease = site.acquire()
    keys = site.hooks().step_started(lease.job_id, "batch", "batch", 33.5)
    assert {name: (own.key.reveal(), own.session_id) for name, own in keys.items()} == {
        "ibm_fez": (site.key(lease), lease.session_id)
    }
    wait_for(lambda: bool(steps(site, lease)))
    step = steps(site, lease)["batch"]
    assert (step.job_id, step.name, step.ended_at) == (lease.job_id, "batch", None)
    # By the gateway's clock.
    assert is_about(step.started_at, 33.5)


def test_a_step_that_is_over_is_written_down(site: Site) -> None:
    lease = site.acquire()
    hooks = site.hooks()
    for step in ("batch", "0", "1", "interactive"):
        hooks.step_started(lease.job_id, step, "result.py", 40)
    wait_for(lambda: len(steps(site, lease)) == 4)
    for step in ("0", "batch"):
        hooks.step_ended(lease.job_id, step, 20)
    wait_for(lambda: sum(step.ended_at is not None for step in steps(site, lease).values()) == 2)
    ended = {name: step.ended_at for name, step in steps(site, lease).items()}
    assert ended["1"] is ended["interactive"] is None
    assert is_about(ended["0"], 20)
    assert is_about(ended["batch"], 20)


def test_what_is_told_twice_counts_once(site: Site) -> None:
    lease = site.acquire()
    hooks = site.hooks()
    hooks.step_started(lease.job_id, "0", "first", 50)
    wait_for(lambda: bool(steps(site, lease)))
    first = steps(site, lease)["0"]
    assert hooks.step_started(lease.job_id, "0", "second", 0).keys() == {"ibm_fez"}
    hooks.step_started(lease.job_id, "1", "another", 0)
    wait_for(lambda: len(steps(site, lease)) == 2)
    assert steps(site, lease)["0"] == first


def test_a_step_that_ends_in_each_component_has_ended_with_the_last(site: Site) -> None:
    lease = site.acquire()
    hooks = site.hooks()
    for step in ("0", "1"):
        hooks.step_started(lease.job_id, step, "python", 50)
    wait_for(lambda: len(steps(site, lease)) == 2)
    for ago in (40, 10, 25):  # what is told first need not have been first
        hooks.step_ended(lease.job_id, "0", ago)
    hooks.step_ended(lease.job_id, "1", 40)
    wait_for(lambda: is_about(steps(site, lease)["0"].ended_at, 10))
    wait_for(lambda: is_about(steps(site, lease)["1"].ended_at, 40))
    assert is_about(steps(site, lease)["0"].ended_at, 10)


def test_what_was_long_ago_was_a_minute_ago(site: Site) -> None:
    lease = site.acquire()
    site.hooks().step_started(lease.job_id, "0", "slow", 4711.0)
    wait_for(lambda: bool(steps(site, lease)))
    assert is_about(steps(site, lease)["0"].started_at, messages.MAX_AGO)


def test_nobody_fills_the_journal_with_steps(site: Site) -> None:
    lease = site.acquire()
    for step in ("40000", "4294967295", "39999"):
        assert site.hooks().step_started(lease.job_id, step, "x", 0).keys() == {"ibm_fez"}
    wait_for(lambda: bool(steps(site, lease)))
    assert steps(site, lease).keys() == {"39999"}


def test_a_step_may_end_after_its_jobs_lease(site: Site) -> None:
    soon, late = site.acquire(), site.acquire("torino")
    for lease in (soon, late):
        site.hooks().step_started(lease.job_id, "batch", "batch", 30)
        wait_for(lambda lease=lease: bool(steps(site, lease)))  # type: ignore[misc]
        site.release(lease)
    with change(site) as db:
        long_ago = (datetime.now(UTC) - timedelta(minutes=2)).isoformat()
        db.execute("UPDATE leases SET ended_at = ? WHERE id = ?", (long_ago, late.id))
    for lease in (late, soon):
        site.hooks().step_ended(lease.job_id, "batch", 1)
    wait_for(lambda: steps(site, soon)["batch"].ended_at is not None)
    assert steps(site, late)["batch"].ended_at is None


def test_a_job_that_has_no_lease_has_no_keys_and_no_steps(site: Site) -> None:
    assert site.hooks().step_started(99_999, "0", "x", 0) == {}
    site.hooks().step_ended(99_999, "0", 0)
    lease = site.acquire()
    site.release(lease)
    assert site.hooks().step_started(lease.job_id, "0", "x", 0) == {}
    held = site.acquire()
    site.hooks().step_started(held.job_id, "0", "x", 0)
    wait_for(lambda: bool(steps(site, held)))
    assert steps(site, lease) == {}


# Who may tell.


@pytest.mark.parametrize("uid", OTHERS)
def test_only_the_jobs_user_may_tell(site: Site, uid: int) -> None:
    own, other = site.acquire(user_id=uid), site.acquire("torino", user_id=1000)
    body = messages.encode(START)
    for lease, status in ((other, 403), (own, 200)):
        for method, path, content in (
            ("POST", messages.job_steps_path(lease.job_id), body),
            ("DELETE", messages.step_end_path(lease.job_id, "0", 0), b""),
        ):
            answer = ask(site, method, path, credential(site, method, path, content, uid), content)
            assert answer.status_code == status
            if status == 403:
                why = f"Job {lease.job_id} belongs to another user."
                assert refusal(answer) == (403, "RefusedError", why)
        wait_for(lambda: bool(steps(site, own)) or lease is other)  # noqa: B023 - it is over with the turn
    assert steps(site, other) == {}


def test_nobody_may_tell_anything_unsigned(site: Site) -> None:
    lease = site.acquire()
    path, body = messages.job_steps_path(lease.job_id), messages.encode(START)
    end = messages.step_end_path(lease.job_id, "0", 0)
    for method, target, signed, content in (
        ("POST", path, "", body),
        ("POST", path, credential(site, "POST", path, b"{}"), body),
        ("DELETE", end, "", b""),
        ("DELETE", end, credential(site, "DELETE", end.replace("0.000", "9.000")), b""),
    ):
        assert refusal(ask(site, method, target, signed, content))[0] == 401
    assert steps(site, lease) == {}


# What makes no sense.


BODIES = {
    "nothing": b"",
    "no JSON": b"{",
    "no text": b"\xff",
    "incomplete": b'{"step": "0", "name": "x"}',
    "the same number in another way": b'{"step": "00", "name": "x", "seconds_ago": 0}',
    "another step": b'{"step": "extern", "name": "x", "seconds_ago": 0}',
    "a line more": b'{"step": "0\\n", "name": "x", "seconds_ago": 0}',
    "a shell's name": b'{"step": "0", "name": "$(id)", "seconds_ago": 0}',
    "no name": b'{"step": "0", "name": "", "seconds_ago": 0}',
    "a long name": b'{"step": "0", "name": "' + b"x" * 65 + b'", "seconds_ago": 0}',
    "to come": b'{"step": "0", "name": "x", "seconds_ago": -1}',
    "a long time": b'{"step": "0", "name": "x", "seconds_ago": 1e9}',
    "no time": b'{"step": "0", "name": "x", "seconds_ago": NaN}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_start_that_makes_no_sense_is_refused(site: Site, body: bytes) -> None:
    lease = site.acquire()
    path = messages.job_steps_path(lease.job_id)
    answer = ask(site, "POST", path, credential(site, "POST", path, body), body)
    assert refusal(answer)[:2] == (400, "RequestError")
    assert steps(site, lease) == {}


@pytest.mark.parametrize(
    "query", ["when=0", "ago=", "ago=-1", "ago=nan", "ago=inf", "ago=61", "ago=1e999", "ago=x"]
)
def test_an_end_that_makes_no_sense_is_refused(site: Site, query: str) -> None:
    lease = site.acquire()
    path = f"{messages.job_steps_path(lease.job_id)}/0?{query}"
    answer = ask(site, "DELETE", path, credential(site, "DELETE", path))
    assert refusal(answer)[:2] == (400, "RequestError")


# A journal that does not do what it should.


@pytest.fixture
def broken(site: Site) -> Iterator[None]:
    """Take the place of steps out of the journal, for a while."""
    with change(site) as db:
        db.execute("ALTER TABLE steps RENAME TO elsewhere")
    yield
    with change(site) as db:
        db.execute("ALTER TABLE elsewhere RENAME TO steps")


@pytest.mark.usefixtures("broken")
def test_a_journal_that_is_broken_fails_no_step(site: Site) -> None:
    lease = site.acquire()
    before = len(site.events("a step is not in the journal"))
    assert site.hooks().step_started(lease.job_id, "0", "x", 0).keys() == {"ibm_fez"}
    site.hooks().step_ended(lease.job_id, "0", 0)
    wait_for(lambda: len(site.events("a step is not in the journal")) == before + 2)


def test_a_journal_that_is_busy_keeps_no_step_waiting(site: Site) -> None:
    lease = site.acquire()
    with change(site) as db:
        db.execute("BEGIN IMMEDIATE")
        # The lock is ours for as long as these take.
        assert site.hooks().step_started(lease.job_id, "0", "x", 0).keys() == {"ibm_fez"}
        assert db.execute("SELECT 1 FROM steps WHERE job_id = ?", (lease.job_id,)).fetchone() is None
        db.execute("ROLLBACK")
    wait_for(lambda: bool(steps(site, lease)))
