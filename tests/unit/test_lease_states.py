# SPDX-License-Identifier: Apache-2.0
"""The states of a lease: one table says which may follow which, and nothing gets past it."""

from __future__ import annotations

import itertools
import tempfile
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qpu_slurm.errors import JournalError
from qpu_slurm.journal import rows
from qpu_slurm.journal.database import Database
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import TRANSITIONS, Hold, LeaseState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qpu_slurm.journal.model import Holder, Lease

IN_AN_HOUR = datetime.now(UTC) + timedelta(hours=1)
PAIRS = list(itertools.product(LeaseState, LeaseState))
HOLDER: Holder = {"job_id": 7, "user_id": 1000}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(tmp_path / "journal.sqlite", patience=1, make=True)) as database:
        yield database


def lease_in(database: Database, state: LeaseState) -> int:
    """Write a lease that is in a state, however it came there."""
    ended = "2026-01-01T00:00:00.000000Z" if state.final else None
    session = "s" if state is LeaseState.HELD else None
    with database.transaction() as db:
        cursor = db.execute(
            "INSERT INTO leases (job_id, user_id, qpu, state, session_id, created_at, ended_at)"
            " VALUES (7, 1000, 'ibm_fez', ?, ?, '2026-01-01T00:00:00.000000Z', ?)",
            (state, session, ended),
        )
        return cursor.lastrowid or 0


# What has to change with a state, so that nothing but the transition can be refused.


def session_of(state: LeaseState) -> str | None:
    return "s" if state is LeaseState.HELD else None


def end_of(state: LeaseState) -> str | None:
    return rows.now() if state.final else None


def test_the_table_names_every_state() -> None:
    assert TRANSITIONS.keys() == {None, *LeaseState}
    assert all(not TRANSITIONS[state] for state in LeaseState if state.final)
    reached = frozenset[LeaseState]().union(*TRANSITIONS.values())
    assert reached == {*LeaseState}


@pytest.mark.parametrize(("before", "after"), PAIRS, ids=str)
def test_a_lease_moves_as_the_table_says_and_not_otherwise(
    database: Database, before: LeaseState, after: LeaseState
) -> None:
    lease_id = lease_in(database, before)
    with database.transaction() as db:
        if after in TRANSITIONS[before]:
            assert (
                rows.move(db, lease_id, after, session_id=session_of(after), ended_at=end_of(after)).state
                is after
            )
        else:
            with pytest.raises(JournalError, match=f"cannot become {after}: it is {before}"):
                rows.move(db, lease_id, after, session_id=session_of(after), ended_at=end_of(after))
            assert rows.one(db, lease_id).state is before


@pytest.mark.parametrize(("before", "after"), PAIRS, ids=str)
def test_the_database_refuses_what_the_table_does_not_have(
    database: Database, before: LeaseState, after: LeaseState
) -> None:
    lease_id = lease_in(database, before)
    if before is after or after in TRANSITIONS[before]:
        with database.transaction() as db:
            rows.change(db, lease_id, state=after, session_id=session_of(after), ended_at=end_of(after))
    else:
        with pytest.raises(JournalError, match="does not follow"), database.transaction() as db:
            rows.change(db, lease_id, state=after, session_id=session_of(after), ended_at=end_of(after))


@pytest.mark.parametrize("state", LeaseState)
def test_a_lease_begins_as_the_table_says(database: Database, state: LeaseState) -> None:
    allowed = state in TRANSITIONS[None]
    with database.transaction() as db:
        if allowed:
            more = {"session_id": "s"} if state is LeaseState.HELD else {}
            more |= {"ended_at": rows.now()} if state.final else {}
            assert rows.one(db, rows.insert(db, HOLDER, state, qpu="ibm_fez", **more)).state is state
        else:
            with pytest.raises(JournalError, match="begins"):
                rows.insert(db, HOLDER, state, qpu="ibm_fez")


CHANGES: dict[str, Callable[[Journal, int], object]] = {
    "begin_session": lambda journal, lease: journal.begin_session(lease, IN_AN_HOUR),
    "give_up_session": lambda journal, lease: journal.give_up_session(lease, "none"),
    "hold": lambda journal, lease: journal.hold(lease, f"s-{lease}-{journal.last_event()}", IN_AN_HOUR),
    "part": lambda journal, lease: journal.part(lease, journal.lease(lease).session_id or "", "closed"),
    "renew": lambda journal, lease: journal.renew(lease),
    "found": lambda journal, lease: journal.found(lease, f"f-{lease}-{journal.last_event()}"),
    "end": lambda journal, _: journal.end(7, "over"),
    "end_one": lambda journal, lease: journal.end_one(lease, "over"),
    "postpone": lambda journal, lease: journal.postpone(lease, "away"),
    "release": lambda journal, lease: journal.finish(lease, LeaseState.RELEASED),
    "fail": lambda journal, lease: journal.finish(lease, LeaseState.FAILED, "refused"),
    "settle": lambda journal, lease: journal.settle(lease),
    "intend": lambda journal, _: journal.intend(qpu="ibm_fez", expires_at=IN_AN_HOUR, **HOLDER),
    "bind": lambda journal, _: journal.bind(qpu="ibm_fez", **HOLDER),
    "bind for a task": lambda journal, _: journal.bind(qpu="ibm_fez", hold=Hold.TASK, **HOLDER),
}


@given(changes=st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(1, 4)), max_size=12))
@settings(deadline=None, max_examples=60)
def test_whatever_is_written_in_whatever_order_every_lease_goes_by_the_table(
    changes: list[tuple[str, int]],
) -> None:
    with tempfile.TemporaryDirectory() as directory, Journal(Path(directory) / "journal.sqlite") as journal:
        before: dict[int, Lease] = {}
        for name, number in changes:
            with suppress(JournalError):
                CHANGES[name](journal, number)
            now = {lease.id: lease for lease in journal.leases(over=True)}
            for lease in now.values():
                last = before.get(lease.id)
                if last is None:
                    # `bind` and `intend` may end one lease and begin another, each once.
                    assert lease.state in TRANSITIONS[None]
                else:
                    assert lease.state is last.state or lease.state in TRANSITIONS[last.state]
            assert before.keys() <= now.keys()
            before = now
