# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.errors import JournalError
from qpu_slurm.journal.history import Lock, TaskUse
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import LeaseState
from qpu_slurm.journal.schema import SCHEMA
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qpu_slurm.journal.model import Lease

KEY = "k3y-of-a-user-that-is-easily-found"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lib" / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal(path) as journal:
        yield journal


def later(seconds: float = 3600) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def intend(journal: Journal, job_id: int = 7, qpu: str = "ibm_fez", *, key: str | None = None) -> Lease:
    return journal.intend(
        job_id=job_id,
        user_id=1000,
        qpu=qpu,
        expires_at=later(),
        api_key=Secret(key) if key else None,
    )


def hold(journal: Journal, job_id: int = 7, qpu: str = "ibm_fez", *, key: str | None = None) -> Lease:
    return journal.hold(intend(journal, job_id, qpu, key=key).id, f"session-{job_id}-{qpu}", later())


def whats(journal: Journal, lease: Lease) -> list[str]:
    return [event.what for event in journal.events(lease.id)]


def test_a_lease_goes_from_intent_to_released(journal: Journal) -> None:
    before = datetime.now(UTC)
    intent = intend(journal)
    assert (intent.job_id, intent.user_id, intent.qpu) == (7, 1000, "ibm_fez")
    assert intent.state is LeaseState.ACQUIRING
    assert (intent.session_id, intent.acquired_at, intent.ended_at) == (None, None, None)
    assert intent.created_at.tzinfo is UTC
    assert before <= intent.created_at <= datetime.now(UTC)

    expires_at = later(600)
    held = journal.hold(intent.id, "s-1", expires_at)
    assert (held.state, held.session_id, held.expires_at) == (LeaseState.HELD, "s-1", expires_at)
    assert held.acquired_at is not None
    assert journal.open_lease(7, "ibm_fez") == held

    [releasing] = journal.end(7, "The job ended.")
    assert (releasing.state, releasing.reason) == (LeaseState.RELEASING, "The job ended.")

    released = journal.finish(held.id, LeaseState.RELEASED)
    assert (released.state, released.reason) == (LeaseState.RELEASED, "The job ended.")
    assert released.ended_at is not None
    assert journal.open_lease(7, "ibm_fez") is None
    assert journal.leases() == []
    assert journal.leases(over=True) == [released]
    assert whats(journal, released) == ["intent", "held", "releasing", "released"]


def test_it_is_there_after_a_restart(path: Path) -> None:
    with Journal(path) as journal:
        held = hold(journal)
        events = journal.events(held.id)
    with Journal(path) as journal:
        assert journal.leases() == [held]
        assert journal.events(held.id) == events


def test_one_job_has_at_most_one_open_lease_on_a_qpu(journal: Journal) -> None:
    first = intend(journal)
    with pytest.raises(JournalError):
        intend(journal)
    assert journal.leases() == [first]

    others = [intend(journal, qpu="ibm_torino"), intend(journal, job_id=8)]
    assert journal.leases() == [first, *others]

    journal.finish(first.id, LeaseState.FAILED, "refused")
    assert intend(journal).id > others[-1].id


def test_a_session_that_comes_after_the_end_was_ordered_is_kept_to_be_ended(journal: Journal) -> None:
    intent = intend(journal)
    journal.end(7, "cancelled")
    late = journal.hold(intent.id, "s-late", later())
    assert (late.state, late.session_id) == (LeaseState.RELEASING, "s-late")


@pytest.mark.parametrize("state", [LeaseState.RELEASED, LeaseState.FAILED])
def test_what_is_over_stays_as_it_is(journal: Journal, state: LeaseState) -> None:
    lease = intend(journal) if state is LeaseState.FAILED else hold(journal)
    over = journal.finish(lease.id, state, "first")
    assert journal.finish(lease.id, LeaseState.RELEASED, "second") == over
    assert journal.hold(lease.id, "another", later()) == over
    assert journal.end_one(lease.id, "again") == over
    assert journal.end(7, "again") == []
    assert whats(journal, over)[-1] == state


def test_a_second_order_to_end_changes_nothing(journal: Journal) -> None:
    hold(journal)
    [first] = journal.end(7, "first")
    assert journal.end(7, "second") == [first]
    assert journal.postpone(first.id, "the service is away") == first
    assert [(event.what, event.detail) for event in journal.events(first.id)][-2:] == [
        ("releasing", "first"),
        ("postponed", "the service is away"),
    ]


def test_leases_are_read_by_job(journal: Journal) -> None:
    fez, torino, other = hold(journal), hold(journal, qpu="ibm_torino"), hold(journal, job_id=8)
    assert journal.leases(job_id=7) == [fez, torino]
    assert [lease.id for lease in journal.end(7, "over")] == [fez.id, torino.id]
    assert journal.lease(other.id) == other


def test_known_sessions_are_those_held_now_or_until_lately(journal: Journal) -> None:
    old = hold(journal, job_id=1)
    journal.finish(old.id, LeaseState.RELEASED, "over")
    since = datetime.now(UTC)
    lately = hold(journal, job_id=2)
    journal.finish(lately.id, LeaseState.RELEASED, "over")
    now = hold(journal, job_id=3)
    intend(journal, job_id=4)
    assert journal.known_sessions(since) == {lately.session_id, now.session_id}


def test_a_users_key_is_kept_while_the_lease_is_open_and_no_longer(path: Path) -> None:
    with Journal(path) as journal:
        lease = hold(journal, key=KEY)
        assert hold(journal, job_id=8).id != lease.id
        key = journal.api_key(lease.id)
        assert key is not None
        assert key.reveal() == KEY
        journal.end(7, "over")
        assert journal.api_key(lease.id) is not None
        assert any(KEY.encode() in file.read_bytes() for file in path.parent.iterdir())

        journal.finish(lease.id, LeaseState.RELEASED)
        assert journal.api_key(lease.id) is None
        # Not even in the write-ahead log, or in a free page.
        assert not any(KEY.encode() in file.read_bytes() for file in path.parent.iterdir())


def test_its_files_are_its_owners_alone(path: Path) -> None:
    previous = os.umask(0)
    try:
        with Journal(path) as journal:
            hold(journal, key=KEY)
            assert path.parent.stat().st_mode & 0o777 == 0o700
            files = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(previous)
    assert files.keys() >= {"journal.sqlite", "journal.sqlite-wal"}
    assert set(files.values()) == {0o600}


def test_its_files_belong_to_the_directorys_owner_even_if_root_makes_them(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    owner = (4242, 4242) if os.geteuid() == 0 else (os.geteuid(), path.parent.stat().st_gid)
    os.chown(path.parent, *owner)
    with Journal(path) as journal:
        hold(journal)
        owners = {(file.stat().st_uid, file.stat().st_gid) for file in path.parent.iterdir()}
    assert owners == {owner}


def exposed(path: Path) -> None:
    Journal(path).close()
    path.chmod(0o640)


def no_database(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("qpu_slurm " * 1000)
    path.chmod(0o600)


def damaged(path: Path) -> None:
    with Journal(path) as journal:
        hold(journal)
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)


def newer(path: Path) -> None:
    Journal(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


def in_a_file(path: Path) -> None:
    path.parent.write_text("no directory")


def a_link(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (exposed, "chmod 600"),
        (no_database, "is no journal"),
        (damaged, "damaged"),
        (newer, "newer qpu_slurm"),
        (in_a_file, "cannot be opened"),
        (a_link, "cannot be opened"),
    ],
)
def test_a_journal_that_cannot_be_used_is_refused_in_words(
    path: Path, prepare: Callable[[Path], None], says: str
) -> None:
    prepare(path)
    with pytest.raises(JournalError, match=says) as caught, Journal(path, patience=0.1) as journal:
        intend(journal)
    assert str(path) in str(caught.value)


def test_a_writer_waits_for_another_but_not_for_ever_and_readers_do_not_wait(path: Path) -> None:
    with Journal(path, patience=0.2) as journal, Journal(path) as other:
        held = hold(journal)
        with other._database.transaction():  # noqa: SLF001 - a process that is in the middle of a change
            assert journal.leases() == [held]
            with pytest.raises(JournalError, match="locked"):
                journal.end(7, "over")
        assert journal.end(7, "over")[0].state is LeaseState.RELEASING


def test_a_full_disk_is_an_error_that_leaves_what_was_there(path: Path) -> None:
    with Journal(path) as journal:
        held = hold(journal)
    program = """
import resource, sys
from pathlib import Path
from datetime import UTC, datetime
from qpu_slurm.errors import JournalError
from qpu_slurm.journal.journal import Journal

journal = Journal(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    for job_id in range(100, 200):
        journal.intend(job_id=job_id, user_id=1, qpu="q", expires_at=datetime.now(UTC))
except JournalError as error:
    print(error)
    print(*(lease.job_id for lease in journal.leases()))
"""
    run = subprocess.run(
        [sys.executable, "-c", program, path], check=True, capture_output=True, text=True, timeout=60
    )
    message, jobs = run.stdout.splitlines()
    assert "disk" in message
    with Journal(path) as journal:
        assert journal.leases()[0] == held
        assert " ".join(str(lease.job_id) for lease in journal.leases()) == jobs


WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import LeaseState

first = int(sys.argv[2])
with Journal(Path(sys.argv[1])) as journal:
    for job_id in range(first, first + int(sys.argv[3])):
        lease = journal.intend(job_id=job_id, user_id=1, qpu="ibm_fez", expires_at=datetime.now(UTC))
        journal.hold(lease.id, f"s-{job_id}", datetime.now(UTC))
        journal.end(job_id, "over")
        journal.finish(lease.id, LeaseState.RELEASED)
        print(job_id, flush=True)
"""


def writer(path: Path, first: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(first), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_that_make_and_write_it_at_once_do_not_disturb_each_other(path: Path) -> None:
    writers = [writer(path, first, 10) for first in (100, 200, 300, 400)]
    for process in writers:
        process.communicate(timeout=240)
        assert process.returncode == 0
    with Journal(path) as journal:
        leases = journal.leases(over=True)
        assert sorted(lease.job_id for lease in leases) == [
            first + n for first in (100, 200, 300, 400) for n in range(10)
        ]
        assert {len(journal.events(lease.id)) for lease in leases} == {4}


def test_what_was_written_survives_a_writer_that_is_killed(path: Path) -> None:
    process = writer(path, 1, 100_000)
    assert process.stdout is not None
    for _ in range(20):
        last = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate(timeout=240)
    last = max([last, *(int(line) for line in rest.split("\n")[:-1])])
    with Journal(path) as journal:
        released = [lease for lease in journal.leases(over=True) if lease.state is LeaseState.RELEASED]
        assert len(released) in {last, last + 1}
        assert len(journal.leases()) <= 1


def test_threads_share_it(journal: Journal) -> None:
    def work(first: int) -> None:
        for job_id in range(first, first + 20):
            journal.finish(hold(journal, job_id=job_id).id, LeaseState.RELEASED, "over")

    threads = [threading.Thread(target=work, args=[first]) for first in (100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal.leases(over=True)) == 60


def test_two_in_one_process_keep_what_another_process_looks_at(path: Path) -> None:
    """SQLite's locks are the process's: who closes a descriptor of the file by hand gives all of them up."""
    look = "import sys, pathlib; from qpu_slurm.journal.journal import Journal\n"
    look += "with Journal(pathlib.Path(sys.argv[1])) as journal: print(len(journal.leases()))"
    with Journal(path) as writer, Journal(path) as reader:
        for number in range(1, 4):
            hold(writer, number)
            seen = subprocess.run(
                [sys.executable, "-c", look, str(path)], capture_output=True, text=True, check=True
            )
            assert int(seen.stdout) == len(reader.leases()) == number


def test_a_journal_of_an_older_release_is_brought_up_to_date(path: Path) -> None:
    path.parent.mkdir()
    path.touch(mode=0o600)
    with sqlite3.connect(path) as db:
        for statement in SCHEMA[0]:
            db.execute(statement)
        db.execute("PRAGMA user_version = 1")
        for number in (3, 4):
            db.execute(
                "INSERT INTO leases (id, job_id, user_id, qpu, state, session_id, created_at, expires_at)"
                " VALUES (?, ?, 1000, 'ibm_fez', 'held', 's', '2026-01-01T00:00:00.000000Z', NULL)",
                (number, number),
            )
            db.execute(
                "INSERT INTO events (time, lease_id, what, detail) VALUES ('t', ?, 'held', '')", (number,)
            )
            db.execute("INSERT INTO credentials VALUES (?, ?)", (number, KEY))
        # The number of a lease that is gone does not come again.
        db.execute("DELETE FROM credentials WHERE lease_id = 4")
        db.execute("DELETE FROM events WHERE lease_id = 4")
        db.execute("DELETE FROM leases WHERE id = 4")
    db.close()
    with Journal(path) as journal:
        (held,) = journal.leases()
        assert (held.id, held.state, held.session_id) == (3, LeaseState.HELD, "s")
        key = journal.api_key(3)
        assert key is not None
        assert key.reveal() == KEY
        assert len(journal._database._db.execute("SELECT * FROM events").fetchall()) == 1  # noqa: SLF001 - as it is there
        assert journal._database._db.execute("PRAGMA foreign_key_check").fetchall() == []  # noqa: SLF001 - likewise
        bound = journal.bind(job_id=5, user_id=1000, qpu="ibm_fez")
        assert (bound.id, bound.state) == (5, LeaseState.BOUND)
    with Journal(path) as journal:
        assert [lease.id for lease in journal.leases()] == [3, 5]


# What sessions were used for.


def ended(journal: Journal, session_id: str = "s-1", job_id: int = 7) -> Lease:
    lease = journal.hold(intend(journal, job_id=job_id).id, session_id, later())
    return journal.finish(lease.id, LeaseState.RELEASED)


def test_a_session_is_to_be_accounted_for_from_its_end_until_the_service_has_told(journal: Journal) -> None:
    held = journal.hold(intend(journal).id, "s-1", later())
    assert journal.history.unaccounted() == []
    journal.finish(held.id, LeaseState.RELEASED)
    [session] = journal.history.unaccounted()
    assert (session.session_id, session.locked_seconds, session.unknown) == ("s-1", None, "")
    assert journal.history.unaccounted(held.id) == [session]
    assert journal.history.unaccounted(held.id + 1) == []

    task = TaskUse(task_id="t-1", session_id="s-1", status="completed", created_at=later(), seconds=2.0)
    lock = Lock(session_id="s-1", began_at=later(1), ended_at=later(4))
    for _ in range(2):  # told twice, it is the same
        journal.history.account("s-1", locked=3.0, executed=2.0, tasks=[task], locks=[lock])
    assert journal.history.unaccounted() == []
    [session] = journal.history.sessions(held.id)
    assert (session.locked_seconds, session.executed_seconds) == (3.0, 2.0)
    assert journal.history.tasks("s-1") == [task]
    assert journal.history.locks("s-1") == [lock]


def test_what_was_given_up_on_stays_unknown_unless_somebody_tells(journal: Journal) -> None:
    lease = ended(journal)
    journal.history.give_up("s-1", "The service is silent.")
    assert journal.history.unaccounted() == []
    [session] = journal.history.sessions(lease.id)
    assert (session.locked_seconds, session.unknown) == (None, "The service is silent.")

    journal.history.account("s-1", locked=3.0, executed=2.0, tasks=[])
    journal.history.give_up("s-1", "Too late.")
    [session] = journal.history.sessions(lease.id)
    assert (session.locked_seconds, session.unknown) == (3.0, "")


def test_uses_are_those_of_a_period(journal: Journal) -> None:
    ended(journal)
    ended(journal, "s-2", job_id=8)
    journal.history.give_up("s-2", "The service is silent.")
    first, second = journal.history.uses(later(-60), later(60))
    assert (first.job_id, first.given_up, first.locked_seconds, first.tasks) == (7, False, None, 0)
    assert (second.job_id, second.given_up) == (8, True)
    assert journal.history.uses(first.opened_at, second.opened_at) == [first]
    assert journal.history.uses(later(1), later(60)) == []


def test_a_history_is_that_of_a_jobs_newest_run(journal: Journal) -> None:
    ended(journal)
    again = ended(journal, "s-2")
    # Without a run's name they are one run.
    assert [past.lease.id for past in journal.history.leases(7)] == [again.id - 1, again.id]
    [past] = journal.history.leases(7)[1:]
    assert [session.session.session_id for session in past.sessions] == ["s-2"]

    newest = journal.intend(job_id=7, user_id=1000, qpu="ibm_fez", expires_at=later(), run="2")
    assert [past.lease for past in journal.history.leases(7)] == [newest]
    assert journal.history.leases(8) == []


# What grows with the years.


def test_leases_are_counted_by_qpu_and_state(journal: Journal) -> None:
    hold(journal, 7)
    hold(journal, 8)
    intend(journal, 9)
    hold(journal, 10, "torino")
    journal.finish(hold(journal, 11).id, LeaseState.RELEASED)
    assert journal.count() == {
        ("ibm_fez", LeaseState.HELD): 2,
        ("ibm_fez", LeaseState.ACQUIRING): 1,
        ("torino", LeaseState.HELD): 1,
    }


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM open_leases ORDER BY +id",
        "SELECT qpu, state, count(*) AS found FROM open_leases GROUP BY qpu, state",
        "SELECT job_id FROM open_leases WHERE qpu = 'ibm_fez'",
    ],
)
def test_leases_of_former_years_cost_no_look_at_those_of_now(
    journal: Journal, path: Path, query: str
) -> None:
    hold(journal)
    with sqlite3.connect(path) as db:
        plan = " ".join(step[3] for step in db.execute(f"EXPLAIN QUERY PLAN {query}"))
    db.close()
    assert "leases_not_over" in plan, plan
