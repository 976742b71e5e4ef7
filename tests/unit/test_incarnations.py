# SPDX-License-Identifier: Apache-2.0
"""Slurm uses a job's number again: what one run held is never taken for another's."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qpu_slurm.errors import UnavailableError
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import LeaseState
from qpu_slurm.leases.broker import Broker
from qpu_slurm.leases.reaper import Reaper
from tests.unit.memory_service import Service, configure, request
from tests.unit.test_leases import bind, raises
from tests.unit.test_reaper import Slurm, reaper, slurm

if TYPE_CHECKING:
    from qpu_slurm.journal.model import Lease

__all__ = ["reaper", "slurm"]  # fixtures


def test_a_new_run_begins_with_nothing_of_the_one_before(
    broker: Broker, journal: Journal, service: Service
) -> None:
    earlier = broker.acquire(request("ibm_fez", "ibm_torino", run="100"))
    [later] = broker.acquire(request("ibm_fez", run="200"))
    assert service.open_sessions() == [later.session_id]
    assert later.run == "200"
    for lease in earlier:
        now = journal.lease(lease.id)
        assert (now.state, now.reason, now.run) == (LeaseState.RELEASED, "The job was started again.", "100")


def test_the_same_run_asked_twice_keeps_what_it_has(broker: Broker) -> None:
    first = broker.acquire(request("ibm_fez", run="100"))
    assert broker.acquire(request("ibm_fez", run="100")) == first
    # A lease that was written down before runs were told apart may be anybody's.
    unknown = broker.acquire(request("ibm_fez", job_id=8))
    assert broker.acquire(request("ibm_fez", job_id=8, run="100")) == unknown


def test_what_an_earlier_run_left_is_in_nobodys_way_on_another_qpu(
    broker: Broker, journal: Journal, service: Service
) -> None:
    [torino] = broker.acquire(request("ibm_torino", run="100"))
    service.before["cancel ibm_torino"] = raises(UnavailableError("away"))
    [fez] = broker.acquire(request("ibm_fez", run="200"))
    assert journal.lease(torino.id).state is LeaseState.RELEASING
    assert fez.state is LeaseState.HELD
    with pytest.raises(UnavailableError):  # the service would have two of this job
        broker.acquire(request("ibm_fez", "ibm_torino", run="300"))


def test_who_was_only_bound_is_bound_anew(broker: Broker, journal: Journal) -> None:
    [first] = broker.acquire(bind("ibm_fez", run="100"))
    [second] = broker.acquire(bind("ibm_fez", run="200"))
    assert (first.id, second.run) != (second.id, "100")
    assert journal.lease(first.id).state is LeaseState.RELEASED


def test_a_run_is_released_and_no_other(broker: Broker, service: Service) -> None:
    [lease] = broker.acquire(request("ibm_fez", run="200"))
    assert broker.release(7, "The job ended.", run="100") == ()
    assert broker.release(7, "The job ended.", run="200", others=True) == ()
    assert service.open_sessions() == [lease.session_id]
    assert [lease.state for lease in broker.release(7, "The job ended.", run="100", others=True)] == [
        LeaseState.RELEASED
    ]


def test_the_reaper_ends_what_another_run_left(
    reaper: Reaper, broker: Broker, service: Service, slurm: Slurm
) -> None:
    broker.acquire(request("ibm_fez", run="100"))
    slurm.add(7, submitted_at=datetime.fromtimestamp(100, UTC))
    assert reaper.run().reaped == ()
    slurm.add(7, submitted_at=datetime.fromtimestamp(200, UTC))
    assert [reaped.why for reaped in reaper.run().reaped] == ["The job was started again."]
    assert service.open_sessions() == []


class Lives(RuleBasedStateMachine):
    """Two jobs that start, end, start anew and are lost; hooks come late, and the service fails."""

    jobs = st.sampled_from([7, 8])
    qpus = st.sampled_from([("ibm_fez",), ("ibm_torino",), ("ibm_fez", "ibm_torino")])

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.service = Service()
        config = configure(self.directory)
        self.journal = Journal(config.journal)
        self.broker = Broker(config, self.journal, self.service.connect, settle=0)
        self.slurm = Slurm()
        self.reaper = Reaper(config, self.broker, self.journal, self.slurm)
        self.runs = dict.fromkeys([7, 8], 100)
        self.held: dict[int, tuple[Lease, ...]] = {}
        self.late: list[tuple[int, int]] = []

    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.directory)

    def _submit(self, job_id: int, state: str) -> None:
        self.slurm.add(job_id, state, submitted_at=datetime.fromtimestamp(self.runs[job_id], UTC))

    @rule(job_id=jobs, qpus=qpus)
    def start(self, job_id: int, qpus: tuple[str, ...]) -> None:
        """Start a job's next run, unless it runs; the hook of the last one may not have run yet."""
        if job_id in self.held:
            return
        self.runs[job_id] += 1
        self._submit(job_id, "CONFIGURING")
        try:
            self.held[job_id] = self.broker.acquire(request(*qpus, job_id=job_id, run=str(self.runs[job_id])))
        except UnavailableError:
            self._submit(job_id, "PENDING")
        else:
            self._submit(job_id, "RUNNING")

    @rule(job_id=jobs)
    def start_again(self, job_id: int) -> None:
        """Run the prolog once more: another component's, or that of a slurmctld that was started again."""
        if job_id in self.held:
            again = request(
                *(lease.qpu for lease in self.held[job_id]), job_id=job_id, run=str(self.runs[job_id])
            )
            assert self.broker.acquire(again) == self.held[job_id]

    @rule(
        job_id=jobs,
        epilog=st.sampled_from(["now", "late", "never"]),
        state=st.sampled_from(["COMPLETED", "PENDING"]),
    )
    def end(self, job_id: int, epilog: str, state: str) -> None:
        if self.held.pop(job_id, None) is None:
            return
        if epilog == "now":
            self.broker.release(job_id, "The job ended.", run=str(self.runs[job_id]))
        elif epilog == "late":
            self.late.append((job_id, self.runs[job_id]))
        self._submit(job_id, state)

    @precondition(lambda self: self.late)
    @rule()
    def epilog_comes_late(self) -> None:
        job_id, run = self.late.pop()
        self.broker.release(job_id, "The job ended.", run=str(run))

    @rule(job_id=jobs)
    def slurm_forgets(self, job_id: int) -> None:
        if job_id not in self.held:
            self.slurm.records.pop(job_id, None)

    @rule(qpu=st.sampled_from(["ibm_fez", "ibm_torino"]))
    def the_service_goes_away(self, qpu: str) -> None:
        self.service.before[f"cancel {qpu}"] = raises(UnavailableError("away"))

    @rule()
    def the_service_is_back(self) -> None:
        self.service.before.clear()

    @rule()
    def reap(self) -> None:
        """After a look, nothing is open but what running jobs hold; unless the service was away."""
        self.reaper.run()
        if not self.service.before:
            assert set(self.service.open_sessions()) == self._held_sessions()

    @invariant()
    def what_a_running_job_holds_stays_open(self) -> None:
        assert self._held_sessions() <= set(self.service.open_sessions())
        for leases in self.held.values():
            assert [self.journal.lease(lease.id) for lease in leases] == list(leases)

    def _held_sessions(self) -> set[str]:
        return {str(lease.session_id) for leases in self.held.values() for lease in leases}


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
