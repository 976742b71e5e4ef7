# SPDX-License-Identifier: Apache-2.0
"""A journal that is deleted, damaged or replaced while processes have it open; its backups."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from qpu_slurm import cli
from qpu_slurm.errors import JournalDamagedError, JournalError
from qpu_slurm.journal.backup import back_up, restore
from qpu_slurm.journal.journal import Journal
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

    from qpu_slurm.journal.model import Lease

KEY = "k3y-of-a-user-that-is-easily-found"
LATER = datetime.now(UTC) + timedelta(hours=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lib" / "journal.sqlite"


def hold(journal: Journal, job_id: int) -> Lease:
    lease = journal.intend(job_id=job_id, user_id=0, qpu="ibm_fez", expires_at=LATER, api_key=Secret(KEY))
    return journal.hold(lease.id, f"session-{job_id}", LATER)


def jobs(journal: Journal) -> list[int]:
    return [lease.job_id for lease in journal.leases()]


def remove(path: Path, *endings: str) -> None:
    for ending in endings:
        path.with_name(path.name + ending).unlink()


# Deleted.


@pytest.mark.parametrize("endings", [("",), ("", "-wal", "-shm"), ("", "-wal")])
def test_a_journal_that_is_deleted_is_brought_back_by_who_has_it_open(
    path: Path, endings: tuple[str, ...]
) -> None:
    with Journal(path) as journal, Journal(path) as other:
        hold(journal, 1)
        assert jobs(other) == [1]
        remove(path, *endings)

        hold(journal, 2)

        assert jobs(journal) == jobs(other) == [1, 2]
        assert [len(each.losses) for each in (journal, other)] == [1, 0]
        assert "deleted" in journal.losses[0]
        with Journal(path, make=False) as new:
            assert jobs(new) == [1, 2]
            new.check()
            # Numbers go on: a job's key is made of them.
            assert hold(new, 3).id == 3
        assert jobs(journal) == [1, 2, 3]
    assert path.stat().st_mode & 0o777 == 0o600


def test_who_reads_notices_as_well(path: Path) -> None:
    with Journal(path) as journal:
        hold(journal, 1)
        remove(path, "", "-wal", "-shm")
        assert jobs(journal) == [1]
        assert journal.losses
        assert path.exists()


def test_a_journal_that_was_damaged_and_moved_away_begins_anew(path: Path) -> None:
    with Journal(path) as journal:
        hold(journal, 1)
    damage(path)
    with Journal(path) as journal:
        with pytest.raises(JournalDamagedError, match="journal restore"):
            journal.check()
        path.rename(path.with_name("damaged"))
        assert jobs(journal) == []
        assert "could not be brought back" in journal.losses[0]
        assert hold(journal, 2).id == 1


def damage(path: Path) -> None:
    """Overwrite all of a journal but what SQLite reads as it opens one."""
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)


# Backups.


def test_a_backup_is_private_and_holds_no_key(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    with Journal(path) as journal:
        hold(journal, 1)
        assert journal.api_key(1) is not None
        assert back_up(journal, copy) == 1
        hold(journal, 2)
        assert back_up(journal, copy) == 2
    assert copy.stat().st_mode & 0o777 == 0o600
    assert KEY.encode() not in copy.read_bytes()
    assert sorted(tmp_path.iterdir()) == [copy, path.parent]


def test_a_backup_that_cannot_be_made_leaves_the_last_one(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    with Journal(path) as journal:
        hold(journal, 1)
        back_up(journal, copy)
    before = copy.read_bytes()
    damage(path)
    with Journal(path) as journal, pytest.raises(JournalDamagedError):
        back_up(journal, copy)
    assert copy.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [copy, path.parent]


@pytest.mark.parametrize("target", ["lib/journal.sqlite", "missing/copy.sqlite", "lib"])
def test_what_cannot_be_a_backup_is_refused(path: Path, tmp_path: Path, target: str) -> None:
    with Journal(path) as journal:
        hold(journal, 1)
        with pytest.raises(JournalError, match=str(tmp_path / target.partition("/copy")[0])):
            back_up(journal, tmp_path / target)
        assert jobs(journal) == [1]


def test_a_journal_that_another_process_has_begun_anew_is_kept(path: Path) -> None:
    with Journal(path) as late, Journal(path) as first:
        hold(first, 1)
        for file in path.parent.iterdir():
            if file.suffix != ".lock":
                with file.open("r+b") as damaged:
                    damaged.write(os.urandom(file.stat().st_size))
        for journal in (first, late):
            with pytest.raises(JournalDamagedError):
                jobs(journal)
        first.begin_anew()
        hold(first, 2)
        assert jobs(late) == [2]  # it has noticed
        late.begin_anew()
        assert jobs(late) == jobs(first) == [2]
        assert (len(first.losses), len(late.losses)) == (1, 0)


@pytest.mark.parametrize("state", ["sound", "damaged", "deleted"])
def test_a_backup_becomes_the_journal_while_that_is_open(path: Path, tmp_path: Path, state: str) -> None:
    copy = tmp_path / "copy.sqlite"
    with Journal(path) as journal:
        hold(journal, 1)
        back_up(journal, copy)
        hold(journal, 2)
        if state == "damaged":
            damage(path)
        elif state == "deleted":
            remove(path, "", "-wal", "-shm")

        done = restore(path, copy)

        assert done.leases == 1
        assert jobs(journal) == [1]
        assert hold(journal, 3).id == 2
        assert not journal.losses
    if state == "deleted":
        assert done.aside is None
    else:
        assert done.aside is not None
        assert done.aside.name.startswith("journal.sqlite.replaced-")
    if state == "sound":
        # What it knew is not lost.
        assert done.aside is not None
        with Journal(done.aside, make=False) as before:
            assert jobs(before) == [1, 2]
    with Journal(path, make=False) as now:
        assert jobs(now) == [1, 3]


def test_what_is_no_backup_leaves_the_journal(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    with Journal(path) as journal:
        hold(journal, 1)
        for content in (b"", b"no journal" * 1000):
            copy.write_bytes(content)
            with pytest.raises(JournalDamagedError, match="no copy of a journal"):
                restore(path, copy)
        back_up(journal, copy)
        damage(copy)
        with pytest.raises(JournalDamagedError):
            restore(path, copy)
        with pytest.raises(JournalError, match=r"missing: cannot be read \(No such file or directory\)"):
            restore(path, tmp_path / "missing")
        assert jobs(journal) == [1]
    assert [found.name for found in path.parent.iterdir() if "replaced" in found.name] == []


WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from qpu_slurm.journal.journal import Journal

print("ready", flush=True)
with Journal(Path(sys.argv[1])) as journal:
    for job_id in range(1, 400):
        journal.intend(job_id=job_id, user_id=0, qpu="ibm_fez", expires_at=datetime.now(UTC))
"""


def test_backups_and_restores_beside_a_process_that_writes_lose_nothing(path: Path, tmp_path: Path) -> None:
    """A change is in the journal of its time, whole: in the one that was replaced, or in the one since."""
    copy = tmp_path / "copy.sqlite"
    with Journal(path) as journal:
        back_up(journal, copy)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        files = [path]
        for number in range(5):
            with Journal(path) as journal:
                back_up(journal, tmp_path / f"{number}.sqlite")
            aside = restore(path, copy).aside
            assert aside is not None
            files.append(aside.rename(aside.with_name(f"before-{number}")))
            for ending in ("-wal", "-shm"):
                companion = aside.with_name(aside.name + ending)
                if companion.exists():
                    companion.rename(path.with_name(f"before-{number}{ending}"))
        assert writer.wait(60) == 0
    written = []
    for file in files:
        with Journal(file, make=False) as journal:
            journal.check()
            written += jobs(journal)
    assert sorted(written) == list(range(1, 400))


def test_threads_that_share_a_journal_follow_it(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    with Journal(path) as journal:
        hold(journal, 1000)
        back_up(journal, copy)

        def intend(job_id: int) -> None:
            journal.intend(job_id=job_id, user_id=0, qpu="ibm_fez", expires_at=LATER)

        threads = [threading.Thread(target=intend, args=(number,)) for number in range(20)]
        for number, thread in enumerate(threads):
            thread.start()
            if number == 10:
                restore(path, copy)
        for thread in threads:
            thread.join()
        journal.check()
        assert 1000 in jobs(journal)


# The command.


def test_the_command_backs_up_and_restores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, copy = tmp_path / "config.toml", tmp_path / "copy.sqlite"
    path = tmp_path / "journal.sqlite"
    crn = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"
    config.write_text(f'journal = "{path}"\n[defaults]\ninstance = "{crn}"\n[[qpu]]\nname = "ibm_fez"\n')
    with Journal(path) as journal:
        hold(journal, 1)
    run = ["--config", str(config), "journal"]
    assert cli.main([*run, "backup", str(copy)]) == 0
    assert capsys.readouterr().out == f"{copy}: 1 leases.\n"
    assert cli.main([*run, "restore", str(copy)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{path}: 1 leases."
    assert second.startswith(f"The one that was there is {path}.replaced-")
    with sqlite3.connect(copy) as db:
        assert db.execute("SELECT count(*) FROM leases").fetchone() == (1,)
    db.close()
