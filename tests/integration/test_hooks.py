# SPDX-License-Identifier: Apache-2.0
"""The hooks between Slurm and the service; Slurm is played here, tests/cluster has the real one."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from qpu_slurm import config
from qpu_slurm.errors import SlurmError
from qpu_slurm.hooks.controller import epilog, prolog
from qpu_slurm.hooks.step import job_env
from qpu_slurm.job import variables
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import LeaseState
from qpu_slurm.lifecycle.start import FAILED, NOT_STARTED
from qpu_slurm.slurm.admin_comment import AdminComment
from qpu_slurm.slurm.job import JobRecord, parse_gres
from qpu_slurm.system import logs
from qpu_slurm_devkit.emulator import Account, Drop, Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qpu_slurm.config import Config
    from qpu_slurm.job.variables import JobQpu
    from qpu_slurm.journal.model import Lease
    from qpu_slurm.slurm.control import Control
    from qpu_slurm_devkit.emulator import Emulator

CONFIG = """
journal = "{directory}/lib/journal.sqlite"
log = "{directory}/hooks.log"
log_level = "debug"
acquire_on = "{acquire_on}"
[outage]
tries = 3
acquire_timeout = 1
[defaults]
endpoint = "{url}/api/v1"
iam_endpoint = "{url}"
instance = "{account.crn}"
[[qpu]]
name = "ibm_fez"
[[qpu]]
name = "ibm_torino"
"""

FIRST_RUN = datetime(2026, 11, 5, 8, 30, 59, tzinfo=UTC)
NEXT_RUN = FIRST_RUN + timedelta(seconds=1)

AWAY = Fault(method="POST", path="/sessions", status=503, times=None)


class Slurm:
    """What Slurm knows, and what it was told."""

    def __init__(self) -> None:
        self.records: dict[int, JobRecord] = {}
        self.said: list[tuple[object, ...]] = []
        self.refuses: set[str] = set()

    def add(self, job_id: int, gres: str = "", **fields: object) -> None:
        values = {
            "het_job_id": None,
            "user_id": os.getuid(),
            "state": "CONFIGURING",
            "batch": True,
            "time_left": 600,
            "submitted_at": FIRST_RUN,
            "admin_comment": "",
        }
        self.records[job_id] = msgspec.convert(
            values | fields | {"job_id": job_id, "gres": parse_gres(gres)}, JobRecord
        )

    # As the hooks ask it,

    def job(self, job_id: int) -> JobRecord | None:
        self._answer("job")
        return self.records.get(job_id)

    def components(self, job_id: int) -> list[JobRecord]:
        job = self.job(job_id)
        return [other for other in self.records.values() if job and other.leader == job.leader]

    def jobs(self) -> list[JobRecord]:
        self._answer("jobs")
        return list(self.records.values())

    # and as they tell it.

    def requeue(self, job: JobRecord, delay: int) -> None:
        self._answer("requeue")
        self.said.append(("requeue", job.job_id, delay))

    def set_admin_comment(self, job_id: int, text: str) -> None:
        self._answer("comment")
        self.records[job_id] = msgspec.structs.replace(self.records[job_id], admin_comment=text)

    def notify(self, job_id: int, sentence: str) -> None:
        self._answer("notify")
        self.said.append(("notify", job_id, sentence))

    def _answer(self, what: str) -> None:
        if what in self.refuses:
            raise SlurmError(f"slurmctld does not answer ({what}).")


class Controller:
    """The controller's hooks, with an emulator for the service."""

    def __init__(self, emulator: Emulator, directory: Path, account: Account, acquire_on: str) -> None:
        self.emulator = emulator
        self.account = account
        self.directory = directory
        self.slurm = Slurm()
        path = directory / "config.toml"
        path.write_text(
            CONFIG.format(directory=directory, url=emulator.url, account=account, acquire_on=acquire_on)
        )
        self.config: Config = config.load(path)
        logs.configure("debug", self.config.log)

    def environ(self, job_id: int, qpu: str = "", leader: int = 0, restarts: int = 0) -> dict[str, str]:
        return {
            "SLURM_JOB_ID": str(job_id),
            "SLURM_HET_JOB_ID": str(leader),
            "SLURM_JOB_UID": str(os.getuid()),
            "SLURM_JOB_RESTART_COUNT": str(restarts),
            "SPANK_QPU_SLURM_QPU": qpu,
            "SPANK_QPU_SLURM_API_KEY": self.account.api_key,
        }

    def prolog(self, job_id: int, qpu: str = "", leader: int = 0, restarts: int = 0) -> int:
        environ = self.environ(job_id, qpu, leader, restarts)
        return prolog(self.config, environ, query=self.slurm, control=cast("Control", self.slurm))

    def epilog(self, job_id: int, leader: int = 0, state: str = "COMPLETING") -> int:
        if job_id in self.slurm.records:
            self.slurm.records[job_id] = msgspec.structs.replace(self.slurm.records[job_id], state=state)
        return epilog(self.config, self.environ(job_id, leader=leader), query=self.slurm)

    def handed_over(self, job_id: int) -> AdminComment:
        return AdminComment.from_comment(self.slurm.records[job_id].admin_comment)

    def qpus(self, job_id: int) -> dict[str, JobQpu]:
        environ = {"QPU_SLURM_API_KEY": self.account.api_key}
        lines = job_env(self.config, job_id, environ, query=self.slurm).text.splitlines()
        return variables.from_environ(dict(line.split("=", 1) for line in lines))

    def open_sessions(self) -> dict[str, str]:
        sessions = [session for session in self.emulator.sessions() if session.accepting_tasks]
        assert len({session.backend for session in sessions}) == len(sessions)
        return {session.backend: session.id for session in sessions}

    def leases(self) -> list[Lease]:
        with Journal(self.config.journal) as journal:
            return journal.leases(over=True)

    def log(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.directory / "hooks.log").read_text().splitlines()]


@pytest.fixture
def controller(emulator: Emulator, tmp_path: Path) -> Controller:
    return Controller(emulator, tmp_path, emulator.accounts[0], "qpu")


def test_a_job_gets_its_sessions_and_loses_them(controller: Controller) -> None:
    controller.slurm.add(7, "gres:qpu:1", admin_comment="a note")
    assert controller.prolog(7, "ibm_fez,ibm_torino") == 0
    sessions = controller.open_sessions()
    assert sessions.keys() == {"ibm_fez", "ibm_torino"}
    with Journal(controller.config.journal) as journal:
        leases = {
            lease.qpu: {"id": lease.id, "created_at": lease.created_at, "tag": lease.tag}
            for lease in journal.leases()
        }
    assert json.loads(controller.slurm.records[7].admin_comment) == {
        "comment": "a note",
        "qpu_slurm": {"sessions": sessions, "leases": msgspec.to_builtins(leases)},
    }
    assert controller.epilog(7) == 0
    assert controller.open_sessions() == {}
    assert {(lease.state, lease.reason) for lease in controller.leases()} == {
        (LeaseState.RELEASED, "The job ended.")
    }


def test_a_steps_variables_are_what_the_prolog_left(controller: Controller) -> None:
    controller.slurm.add(7)
    controller.prolog(7, "ibm_fez")
    qpu = controller.qpus(7)["ibm_fez"]
    assert qpu.session_id == controller.open_sessions()["ibm_fez"]
    assert qpu.api_key.reveal() == controller.account.api_key
    # What a program opens by itself ends with the job, too.
    assert qpu.max_ttl == 600


def test_a_job_without_a_qpu_costs_one_question(controller: Controller) -> None:
    controller.slurm.add(7, "gres:gpu:1")
    assert controller.prolog(7) == 0
    assert controller.slurm.records[7].admin_comment == ""
    assert controller.emulator.requests() == []
    assert not controller.config.journal.exists()
    assert job_env(controller.config, 7, {}, query=controller.slurm).text == ""
    assert controller.epilog(7) == 0


def test_an_option_alone_only_binds_where_the_admin_wants_a_gres(emulator: Emulator, tmp_path: Path) -> None:
    controller = Controller(emulator, tmp_path, emulator.accounts[0], "gres")
    controller.slurm.add(7)
    controller.slurm.add(8, "gres:qpu:ibm_torino:1", het_job_id=7)
    assert controller.prolog(7, "ibm_fez") == 0
    assert controller.prolog(8, "ibm_fez", leader=7) == 0
    assert controller.handed_over(7).sessions == {"ibm_fez": None}
    assert controller.open_sessions().keys() == {"ibm_torino"}
    assert controller.handed_over(8).sessions == {"ibm_fez": None} | controller.open_sessions()
    assert {(lease.job_id, lease.qpu, lease.state) for lease in controller.leases()} == {
        (7, "ibm_fez", LeaseState.BOUND),
        (7, "ibm_torino", LeaseState.HELD),
    }
    # Each component's steps see what the whole job has, their own first.
    for job_id, names in ((7, ["ibm_fez", "ibm_torino"]), (8, ["ibm_torino", "ibm_fez"])):
        qpus = controller.qpus(job_id)
        assert list(qpus) == names
        assert {name: qpu.session_id for name, qpu in qpus.items()} == controller.handed_over(8).sessions
    assert controller.epilog(7, leader=7) == 0
    assert {lease.state for lease in controller.leases()} == {LeaseState.RELEASED}


def test_a_session_of_one_component_is_for_those_too_that_are_bound(
    emulator: Emulator, tmp_path: Path
) -> None:
    controller = Controller(emulator, tmp_path, emulator.accounts[0], "gres")
    controller.slurm.add(7, het_job_id=7)
    controller.slurm.add(8, "gres:qpu:1", het_job_id=7)
    for job_id in (7, 8):
        assert controller.prolog(job_id, "ibm_fez", leader=7) == 0
    sessions = controller.open_sessions()
    assert sessions.keys() == {"ibm_fez"}
    for job_id in (7, 8):
        assert controller.qpus(job_id)["ibm_fez"].session_id == sessions["ibm_fez"]
    assert [lease.state for lease in controller.leases()] == [LeaseState.RELEASED, LeaseState.HELD]


def test_a_het_job_has_one_session_for_all_components_until_its_leader_ends(controller: Controller) -> None:
    for job_id in (7, 8):
        controller.slurm.add(job_id, het_job_id=7)
        assert controller.prolog(job_id, "ibm_fez", leader=7) == 0
    assert controller.handed_over(7) == controller.handed_over(8)
    assert len(controller.emulator.sessions()) == 1
    assert [lease.job_id for lease in controller.leases()] == [7]

    # One component is cancelled: the job goes on.
    assert controller.epilog(8, leader=7) == 0
    assert len(controller.open_sessions()) == 1
    controller.slurm.add(7, het_job_id=7, state="COMPLETING")
    assert controller.epilog(7, leader=7) == 0
    assert controller.open_sessions() == {}


@pytest.mark.parametrize(
    ("leader", "submitted_at"),
    [
        ("COMPLETING", FIRST_RUN),
        ("CANCELLED", FIRST_RUN),
        # The whole job was requeued, and the leader's epilog was done first.
        ("PENDING", NEXT_RUN),
        (None, FIRST_RUN),
    ],
)
def test_a_component_ends_what_a_leader_that_is_over_cannot(
    controller: Controller, leader: str | None, submitted_at: datetime
) -> None:
    # The components of a job may have been submitted a second apart.
    controller.slurm.add(8, het_job_id=7, submitted_at=NEXT_RUN)
    controller.slurm.add(7, het_job_id=7)
    controller.prolog(8, "ibm_fez", leader=7)
    assert len(controller.open_sessions()) == 1
    del controller.slurm.records[7]
    if leader:
        controller.slurm.add(7, het_job_id=7, state=leader, submitted_at=submitted_at)
    assert controller.epilog(8, leader=7) == 0
    assert controller.open_sessions() == {}


@pytest.mark.parametrize("state", ["RUNNING", "PENDING", "COMPLETED"])
def test_an_epilog_that_comes_late_ends_nothing_of_the_next_run(controller: Controller, state: str) -> None:
    controller.slurm.add(7)
    controller.prolog(7, "ibm_fez")
    [first] = controller.leases()
    controller.slurm.add(7, submitted_at=NEXT_RUN)
    controller.prolog(7, "ibm_fez")
    # What the last run had is gone already, and the epilog of that run comes only now.
    assert {lease.id: lease.state for lease in controller.leases()}[first.id] is LeaseState.RELEASED
    before = controller.open_sessions()
    assert before.keys() == {"ibm_fez"}
    if state == "COMPLETED":
        # The number went to somebody else.
        controller.slurm.add(7, submitted_at=NEXT_RUN, user_id=4711, state="RUNNING")
        state = "RUNNING"
    assert controller.epilog(7, state=state) == 0
    assert controller.open_sessions() == before


MISTAKES = {
    "unknown": ("ibm_kyiv", "", "ibm_fez, ibm_torino"),
    "malformed": ("ibm_fez;reboot", "", "--qpu=NAME"),
    "which one": ("", "gres:qpu:1", "Add --qpu=NAME"),
}


@pytest.mark.parametrize(("qpu", "gres", "says"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_ends_a_batch_job_with_a_sentence(
    controller: Controller, qpu: str, gres: str, says: str
) -> None:
    controller.slurm.add(7, het_job_id=7)
    controller.slurm.add(8, gres, het_job_id=7)
    assert controller.prolog(8, qpu, leader=7) == 0
    # The batch script runs in the leader: it must not get as far as the component that has the mistake.
    assert says in controller.handed_over(8).error
    for job_id in (7, 8):
        line = job_env(controller.config, job_id, {}, query=controller.slurm).text
        assert line.startswith("error: ")
        assert says in line
        assert line.count("\n") == 1
    assert controller.slurm.said == []
    assert controller.emulator.sessions() == []


def refused(controller: Controller, job_id: int = 7) -> list[tuple[str, LeaseState, str]]:
    with Journal(controller.config.journal) as journal:
        return [(lease.qpu, lease.state, lease.reason) for lease in journal.leases(job_id=job_id, over=True)]


@pytest.mark.parametrize(
    ("qpu", "gres", "asked"),
    [
        ("ibm_kyiv,ibm_fez", "", ["ibm_kyiv", "ibm_fez"]),
        ("ibm_fez;reboot", "", ["?"]),
        ("", "gres:qpu:1", ["?"]),
        ("", "gres:qpu:ibm_kyiv:1", ["ibm_kyiv"]),
    ],
)
def test_a_mistake_leaves_a_record(controller: Controller, qpu: str, gres: str, asked: list[str]) -> None:
    controller.slurm.add(7, gres)
    assert controller.prolog(7, qpu) == 0
    sentence = controller.handed_over(7).error
    assert refused(controller) == [(name, LeaseState.FAILED, sentence) for name in asked]


@pytest.mark.parametrize("path", ["/backends/*/status", "/sessions"])
def test_what_the_service_refuses_leaves_one_record(controller: Controller, path: str) -> None:
    controller.emulator.inject(Fault(path=path, status=403, times=None))
    controller.slurm.add(7)
    assert controller.prolog(7, "ibm_fez") == 0
    assert refused(controller) == [("ibm_fez", LeaseState.FAILED, controller.handed_over(7).error)]


def test_who_waits_at_a_terminal_leaves_a_record(controller: Controller) -> None:
    controller.emulator.set_backend("ibm_fez", "paused", "until noon")
    controller.slurm.add(7, batch=False)
    assert controller.prolog(7, "ibm_fez") == NOT_STARTED
    [(qpu, state, reason)] = refused(controller)
    assert (qpu, state) == ("ibm_fez", LeaseState.FAILED)
    assert controller.slurm.said == [("notify", 7, f"qpu_slurm: {reason}")]


@pytest.mark.parametrize("restarts", [0, 3])
def test_who_waits_at_a_terminal_is_told_there(controller: Controller, restarts: int) -> None:
    controller.slurm.add(7, batch=False)
    assert controller.prolog(7, "ibm_kyiv", restarts=restarts) == NOT_STARTED
    controller.emulator.inject(AWAY)
    assert controller.prolog(7, "ibm_fez", restarts=restarts) == NOT_STARTED
    (_, _, mistake), (what, job_id, outage) = controller.slurm.said
    assert "ibm_kyiv" in str(mistake)
    assert (what, job_id) == ("notify", 7)
    assert str(outage).startswith("qpu_slurm: ")
    assert controller.slurm.records[7].admin_comment == ""


def test_what_the_service_refuses_ends_the_job_in_its_words(emulator: Emulator, tmp_path: Path) -> None:
    controller = Controller(emulator, tmp_path, emulator.accounts[1], "qpu")
    controller.slurm.add(7)
    assert controller.prolog(7, "ibm_fez") == 0
    assert "open plan" in controller.handed_over(7).error.lower()
    assert controller.slurm.said == []


OUTAGES = {
    "the service": AWAY,
    "the QPU": Fault(path="/backends/*/status", body='{"state": true, "status": "paused"}', status=200),
    "no answer": Fault(method="POST", path="/sessions", drop=Drop.BEFORE, times=None),
    "slow": Fault(path="/identity/token", delay=2),
}


@pytest.mark.parametrize("fault", OUTAGES.values(), ids=OUTAGES.keys())
def test_an_outage_requeues_a_batch_job(controller: Controller, fault: Fault) -> None:
    controller.slurm.add(32)
    controller.emulator.inject(fault)
    assert controller.prolog(32, "ibm_fez") == 0
    assert controller.slurm.said == [("requeue", 32, 60)]
    assert controller.handed_over(32).waiting
    controller.emulator.clear_faults()
    assert controller.epilog(32) == 0
    assert controller.open_sessions() == {}

    # It is back, and the delay is over: nothing of what went wrong is in the way.
    let_time_pass(controller)
    assert controller.prolog(32, "ibm_fez", restarts=1) == 0
    assert controller.handed_over(32).sessions == controller.open_sessions()


def test_an_outage_that_lasts_requeues_later_and_later_and_is_given_up_on(controller: Controller) -> None:
    controller.emulator.inject(AWAY)
    controller.slurm.add(32)
    for _ in range(3):
        assert controller.prolog(32, "ibm_fez") == 0
    assert controller.slurm.said == [("requeue", 32, 60), ("requeue", 32, 120), ("requeue", 32, 240)]
    assert controller.handed_over(32).qpus == ("ibm_fez",)
    assert controller.prolog(32, "ibm_fez") == 0
    assert len(controller.slurm.said) == 3
    assert "given up after 3" in controller.handed_over(32).error


def let_time_pass(controller: Controller) -> None:
    """Have the hooks ask again how the QPU is."""
    with closing(sqlite3.connect(controller.config.journal)) as db, db:
        db.execute("DELETE FROM seen_qpus")


def close(controller: Controller) -> None:
    with Journal(controller.config.journal) as journal:
        journal.closings.close("ibm_fez", "New fridge until noon.", 0)


def pause(controller: Controller) -> None:
    controller.emulator.set_backend("ibm_fez", "paused", "until noon")


@pytest.mark.parametrize("away", [close, pause])
def test_a_qpu_that_is_not_to_be_had_is_waited_for_however_long(
    controller: Controller, away: Callable[[Controller], None]
) -> None:
    away(controller)
    controller.slurm.add(32)
    for _ in range(5):
        assert controller.prolog(32, "ibm_fez") == 0
    assert controller.slurm.said == [("requeue", 32, 60)] * 5
    assert "until noon" in controller.handed_over(32).waiting
    # An outage that comes on top has all of its tries.
    with Journal(controller.config.journal) as journal:
        journal.closings.open("ibm_fez")
    controller.emulator.set_backend("ibm_fez", "active")
    let_time_pass(controller)
    controller.emulator.inject(AWAY)
    assert controller.prolog(32, "ibm_fez") == 0
    assert controller.handed_over(32).tries == 1

    controller.slurm.add(33, batch=False)
    away(controller)
    let_time_pass(controller)
    assert controller.prolog(33, "ibm_fez") == NOT_STARTED
    assert "until noon" in str(controller.slurm.said[-1])


def test_a_component_requeues_the_whole_job(controller: Controller) -> None:
    controller.emulator.inject(AWAY)
    controller.slurm.add(16, het_job_id=16)
    controller.slurm.add(17, het_job_id=16)
    assert controller.prolog(17, "ibm_fez", leader=16) == 0
    assert controller.slurm.said == [("requeue", 16, 60)]


@pytest.mark.parametrize("state", ["CANCELLED", "PENDING", "COMPLETING"])
def test_a_job_that_is_over_is_not_brought_back(controller: Controller, state: str) -> None:
    controller.emulator.inject(AWAY)
    controller.slurm.add(7, state=state)
    assert controller.prolog(7, "ibm_fez") == 0
    assert controller.slurm.said == []


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize(
    "now", [{"state": "COMPLETING"}, {"state": "PENDING"}, {"submitted_at": FIRST_RUN + timedelta(minutes=5)}]
)
def test_a_run_that_is_over_by_now_is_not_refused(
    controller: Controller, monkeypatch: pytest.MonkeyPatch, *, batch: bool, now: dict[str, Any]
) -> None:
    controller.slurm.add(7, batch=batch)
    ask = controller.slurm.components

    def ends_meanwhile(job_id: int) -> list[JobRecord]:
        found = ask(job_id)
        controller.slurm.add(7, batch=batch, **now)
        return found

    monkeypatch.setattr(controller.slurm, "components", ends_meanwhile)
    assert controller.prolog(7, "ibm_nowhere") == 0
    assert (controller.slurm.records[7].admin_comment, controller.slurm.said) == ("", [])
    assert "error" not in [line["level"] for line in controller.log()]


def test_a_job_that_slurm_will_not_requeue_ends_with_the_reason(controller: Controller) -> None:
    controller.emulator.inject(AWAY)
    controller.slurm.refuses = {"requeue"}
    controller.slurm.add(7)
    assert controller.prolog(7, "ibm_fez") == 0
    assert "could not be requeued" in controller.handed_over(7).error


def test_a_journal_that_cannot_be_written_is_an_outage(controller: Controller) -> None:
    controller.config.journal.parent.mkdir()
    controller.config.journal.write_text("no journal")
    controller.slurm.add(7)
    assert controller.prolog(7, "ibm_fez") == 0
    assert [said[0] for said in controller.slurm.said] == ["requeue"]
    assert controller.emulator.requests() == []
    assert controller.epilog(7) == FAILED


def test_a_session_that_slurm_cannot_be_told_of_is_ended(controller: Controller) -> None:
    controller.slurm.add(7)
    controller.slurm.refuses = {"comment"}
    assert controller.prolog(7, "ibm_fez") == NOT_STARTED
    assert controller.epilog(7) == 0
    assert controller.open_sessions() == {}


@pytest.mark.parametrize("missing", ["job", "record", "environment"])
def test_without_slurm_the_job_is_left_to_slurm(controller: Controller, missing: str) -> None:
    if missing == "job":
        controller.slurm.refuses = {"job"}
    environ = {} if missing == "environment" else controller.environ(7, "ibm_fez")
    slurm = controller.slurm
    assert prolog(controller.config, environ, query=slurm, control=cast("Control", slurm)) == FAILED
    assert controller.emulator.requests() == []


def test_a_release_that_fails_does_not_fail_the_epilog(controller: Controller) -> None:
    controller.slurm.add(7)
    controller.prolog(7, "ibm_fez")
    controller.emulator.inject(Fault(path="/sessions/*/close", status=401, times=None))
    assert controller.epilog(7) == 0
    assert [lease.state for lease in controller.leases()] == [LeaseState.RELEASING]
    controller.emulator.clear_faults()
    assert controller.epilog(7) == 0
    assert controller.open_sessions() == {}


def test_what_happened_is_logged_without_the_key(controller: Controller) -> None:
    controller.slurm.add(7)
    controller.prolog(7, "ibm_fez")
    controller.epilog(7)
    events = {event["event"] for event in controller.log() if event.get("job_id") == 7}
    assert events >= {"session opened", "the job has its QPUs", "session ended", "released"}
    assert controller.account.api_key not in (controller.directory / "hooks.log").read_text()
