# SPDX-License-Identifier: Apache-2.0
"""Leases whose sessions are opened by the job's tasks: the broker's part, against a service in memory."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from qpu_slurm.errors import AnswerLostError, NoLeaseError, QpuSlurmError, RefusedError, UnavailableError
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import Hold, LeaseRequest, LeaseState
from qpu_slurm.leases.broker import Broker
from qpu_slurm.leases.reaper import Reaper
from qpu_slurm.providers.base import SessionState
from qpu_slurm.slurm.job import JobRecord
from qpu_slurm.system.deadline import NEVER, Deadline
from tests.unit.memory_service import Killed, Life, Mortal, Service, configure, request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qpu_slurm.config import Config
    from qpu_slurm.journal.model import Lease
    from qpu_slurm.providers.base import Access, Provider
    from qpu_slurm.slurm.query import Query


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return QPUs of which one is behind the gateway, and the others are not."""
    config = configure(tmp_path)
    fez = msgspec.structs.replace(config.qpus["ibm_fez"], credentials="gateway")
    return msgspec.structs.replace(config, qpus={**config.qpus, "ibm_fez": fez})


def later(*qpus: str, seconds: int = 1800, job_id: int = 7) -> LeaseRequest:
    return msgspec.structs.replace(request(*qpus, seconds=seconds, job_id=job_id), hold=Hold.TASK)


@pytest.mark.parametrize("binding_first", [True, False])
def test_a_component_that_is_only_bound_is_in_no_others_way(broker: Broker, *, binding_first: bool) -> None:
    """Hooks of a heterogeneous job's components run in any order."""
    transpile = msgspec.structs.replace(request(), bind=("ibm_fez",))
    both = [transpile, later("ibm_fez")] if binding_first else [later("ibm_fez"), transpile]
    leases = [broker.acquire(asked)[0] for asked in both]
    assert leases[-1].hold is Hold.TASK
    assert broker.open_session(leases[-1].id).state is LeaseState.HELD


def raises(error: QpuSlurmError) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


def what(journal: Journal, lease: Lease) -> list[str]:
    return [event.what for event in journal.events(lease.id)]


def test_no_session_is_opened_before_the_first_task(
    broker: Broker, journal: Journal, service: Service
) -> None:
    fez, torino = broker.acquire(later("ibm_fez", "ibm_torino"))
    assert (fez.state, fez.hold, fez.session_id) == (LeaseState.BOUND, Hold.TASK, None)
    assert service.sessions == {}
    assert service.calls == ["status ibm_fez", "status ibm_torino"]
    # The user's own key is needed to end what his steps open.
    assert journal.api_key(torino.id) is not None
    assert journal.api_key(fez.id) is None
    assert broker.acquire(later("ibm_fez", "ibm_torino")) == (fez, torino)


def test_the_admin_chooses_for_those_who_do_not(config: Config, journal: Journal, service: Service) -> None:
    fez = msgspec.structs.replace(config.qpus["ibm_fez"], session="task")
    broker = Broker(
        msgspec.structs.replace(config, qpus={**config.qpus, "ibm_fez": fez}), journal, service.connect
    )
    bound, held = broker.acquire(request("ibm_fez", "ibm_torino"))
    assert (bound.hold, held.hold) == (Hold.TASK, Hold.JOB)
    assert service.open_sessions() == [held.session_id]
    (held,) = broker.acquire(msgspec.structs.replace(request("ibm_fez", job_id=8), hold=Hold.JOB))
    assert held.session_id in service.open_sessions()


def test_a_qpu_that_is_offline_keeps_such_a_job_waiting_too(
    broker: Broker, journal: Journal, service: Service
) -> None:
    service.offline["ibm_fez"] = "maintenance"
    with pytest.raises(UnavailableError, match="maintenance"):
        broker.acquire(later("ibm_fez"))
    assert journal.leases(over=True) == []


def test_all_or_none_with_one_that_is_opened_later(
    broker: Broker, config: Config, journal: Journal, service: Service
) -> None:
    torino = msgspec.structs.replace(config.qpus["ibm_torino"], session="task")
    mixed = Broker(
        msgspec.structs.replace(config, qpus={**config.qpus, "ibm_torino": torino}), journal, service.connect
    )
    service.before["open ibm_fez"] = raises(RefusedError("no"))
    with pytest.raises(RefusedError):
        mixed.acquire(request("ibm_torino", "ibm_fez"))
    assert {lease.state for lease in journal.leases(over=True)} <= {LeaseState.RELEASED, LeaseState.FAILED}
    assert broker.release(7, "The job ended.") == ()


def test_the_first_task_gets_a_session_and_the_next_one_the_same(
    broker: Broker, journal: Journal, service: Service
) -> None:
    (bound,) = broker.acquire(later("ibm_fez", seconds=600))
    held = broker.open_session(bound.id)
    assert (held.id, held.state, held.session_id) == (bound.id, LeaseState.HELD, "s1")
    assert 590 <= service.ttls[0] <= 600
    assert broker.open_session(bound.id) == held
    assert broker.acquire(later("ibm_fez")) == (held,)
    (released,) = broker.release(7, "The job ended.")
    assert released.state is LeaseState.RELEASED
    assert service.open_sessions() == []
    assert what(journal, bound) == ["bound", "intent", "held", "renewed", "releasing", "released"]


def test_steps_that_ask_at_once_get_one_session(config: Config, journal: Journal, service: Service) -> None:
    (lease,) = Broker(config, journal, service.connect).acquire(later("ibm_fez"))
    got: list[str | None] = []

    def step() -> None:
        got.append(Broker(config, journal, service.connect).open_session(lease.id).session_id)

    threads = [threading.Thread(target=step) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert got == ["s1"] * 8
    assert len(service.sessions) == 1


@pytest.mark.parametrize("hold", [Hold.JOB, Hold.TASK])
def test_a_session_that_takes_no_more_is_followed_by_another(
    broker: Broker, journal: Journal, service: Service, hold: Hold
) -> None:
    (lease,) = broker.acquire(msgspec.structs.replace(request("ibm_fez"), hold=hold))
    first = broker.open_session(lease.id).session_id
    service.close(str(first))
    second = broker.open_session(lease.id)
    assert second.id == lease.id
    assert service.open_sessions() == [second.session_id]
    journal.part(lease.id, str(second.session_id), "The job's last task was submitted.")
    third = broker.open_session(lease.id)
    assert len(service.sessions) == 3
    assert [session.session_id for session in journal.history.sessions(lease.id)] == [
        first,
        second.session_id,
        third.session_id,
    ]
    broker.release(7, "The job ended.")
    assert service.open_sessions() == []
    assert all(session.ended_at for session in journal.history.sessions(lease.id))


def test_the_end_of_the_job_ends_what_still_runs_in_a_session_that_takes_no_more(
    broker: Broker, journal: Journal, service: Service
) -> None:
    (lease,) = broker.acquire(later("ibm_fez"))
    broker.open_session(lease.id)
    journal.part(lease.id, "s1", "The last task was submitted.")
    service.calls.clear()
    broker.release(7, "The job was cancelled.")
    assert service.calls == ["cancel ibm_fez"]


def test_a_session_that_was_accounted_for_is_not_ended_again(
    broker: Broker, journal: Journal, service: Service
) -> None:
    (lease,) = broker.acquire(later("ibm_fez"))
    broker.open_session(lease.id)
    journal.part(lease.id, "s1", "The last task was submitted.")
    journal.history.account("s1", locked=2.0, executed=2.0, tasks=[])
    service.calls.clear()
    (released,) = broker.release(7, "The job ended.")
    assert released.state is LeaseState.RELEASED
    assert service.calls == []


def test_a_job_without_a_task_is_released_without_asking_anybody(
    broker: Broker, journal: Journal, service: Service
) -> None:
    (lease,) = broker.acquire(later("ibm_fez"))
    service.calls.clear()
    (released,) = broker.release(7, "The job ended.")
    assert released.state is LeaseState.RELEASED
    assert service.calls == []
    assert what(journal, lease) == ["bound", "releasing", "released"]


def test_what_is_only_bound_opens_none(broker: Broker, service: Service) -> None:
    (lease,) = broker.acquire(msgspec.structs.replace(request(), bind=("ibm_fez",)))
    with pytest.raises(NoLeaseError):
        broker.open_session(lease.id)
    broker.release(7, "The job ended.")
    with pytest.raises(NoLeaseError):
        broker.open_session(lease.id)
    assert service.sessions == {}


@pytest.mark.parametrize("error", [RefusedError("Open plan"), UnavailableError("away")])
def test_a_session_that_is_not_to_be_had_leaves_the_lease_to_the_job(
    broker: Broker, journal: Journal, service: Service, error: QpuSlurmError
) -> None:
    (lease,) = broker.acquire(later("ibm_fez"))
    service.before["open ibm_fez"] = raises(error)
    with pytest.raises(type(error), match=str(error)):
        broker.open_session(lease.id)
    assert journal.lease(lease.id).state is LeaseState.BOUND
    service.before.clear()
    assert broker.open_session(lease.id).session_id == "s1"


@pytest.mark.parametrize("then", ["open", "release"])
def test_a_session_whose_answer_was_lost_is_found(broker: Broker, service: Service, then: str) -> None:
    (lease,) = broker.acquire(later("ibm_fez"))
    service.after["open ibm_fez"] = raises(AnswerLostError("silence"))
    if then == "open":
        assert broker.open_session(lease.id).session_id == "s1"
    else:
        service.before["look ibm_fez"] = raises(UnavailableError("away"))
        with pytest.raises(AnswerLostError):
            broker.open_session(lease.id)
    service.after.clear()
    service.before.clear()
    broker.release(7, "The job ended.")
    assert len(service.sessions) == 1
    assert service.open_sessions() == []


def test_a_job_that_ends_while_its_first_task_opens_a_session_leaves_none(
    broker: Broker, config: Config, journal: Journal, service: Service
) -> None:
    (lease,) = broker.acquire(later("ibm_fez"))
    epilog = threading.Thread(
        target=lambda: Broker(config, journal, service.connect).release(7, "The job was cancelled.")
    )

    def cancelled_meanwhile() -> None:
        epilog.start()
        while journal.lease(lease.id).state is not LeaseState.RELEASING:
            epilog.join(0.01)

    service.after["open ibm_fez"] = cancelled_meanwhile
    with pytest.raises(NoLeaseError, match="Job 7 was ended"):
        broker.open_session(lease.id)
    epilog.join(10)
    assert journal.lease(lease.id).state is LeaseState.RELEASED
    assert (len(service.sessions), service.open_sessions()) == (1, [])


def test_a_job_that_was_given_more_time_still_gets_a_session(broker: Broker, service: Service) -> None:
    (lease,) = broker.acquire(later("ibm_fez", seconds=0))
    assert broker.open_session(lease.id).state is LeaseState.HELD
    assert service.ttls == [28_800]


def test_killed_at_any_step_one_session_is_left_and_the_job_goes_on(config: Config, tmp_path: Path) -> None:
    deaths, steps = 0, 0
    with ExitStack() as dead:
        while True:
            steps += 1
            service = Service()
            journal = dead.enter_context(Journal(tmp_path / f"{steps}.sqlite"))
            alive = Broker(config, journal, service.connect, settle=0)
            (lease,) = alive.acquire(later("ibm_fez"))
            life = Life(steps)
            mortal: Any = Mortal(journal, life)

            def connect(
                access: Access,
                *,
                deadline: Deadline = NEVER,
                service: Service = service,
                life: Life = life,
            ) -> Provider:
                return cast("Provider", Mortal(service.connect(access, deadline=deadline), life))

            try:
                Broker(config, mortal, connect, settle=0).open_session(lease.id)
            except Killed:
                deaths += 1
            else:
                break
            again = alive.open_session(lease.id)
            assert service.open_sessions() == [again.session_id]
            assert len(service.sessions) == 1
            alive.release(7, "The job ended.")
            assert service.open_sessions() == []
            assert journal.leases() == []
    assert deaths > 5


class _Running:
    """A Slurm that runs job 7."""

    def jobs(self) -> list[JobRecord]:
        return [
            JobRecord(
                job_id=7,
                het_job_id=None,
                user_id=1000,
                state="RUNNING",
                batch=True,
                gres=(),
                time_left=600,
                admin_comment="",
            )
        ]


def test_a_lease_whose_opener_died_is_not_taken_from_its_job(
    config: Config, journal: Journal, broker: Broker
) -> None:
    (lease,) = broker.acquire(later("ibm_fez"))
    journal.begin_session(lease.id, datetime.now(UTC) + timedelta(hours=1))
    hasty = msgspec.structs.replace(
        config, outage=msgspec.structs.replace(config.outage, acquire_timeout=-1000)
    )
    reaper = Reaper(hasty, broker, journal, cast("Query", _Running()))
    (reaped,) = reaper.run().reaped
    # That nothing came of the opening is settled; the lease stays the job's.
    assert reaped.lease.state is journal.lease(lease.id).state is LeaseState.BOUND
    assert broker.open_session(lease.id).state is LeaseState.HELD


# Without the gateway, steps open sessions by themselves.


def opened_by_a_step(service: Service, *, tag: str | None, ends_in: int = 600) -> str:
    session = service.create("ibm_torino")
    ends_at = datetime.now(UTC) + timedelta(seconds=ends_in)
    service.sessions[session.id] = msgspec.structs.replace(session, ends_at=ends_at)
    if tag is not None:
        service.tags[session.id] = tag
    return session.id


@pytest.mark.parametrize("hold", [Hold.JOB, Hold.TASK])
def test_the_end_of_the_job_ends_what_its_steps_opened(
    broker: Broker, journal: Journal, service: Service, hold: Hold
) -> None:
    (lease,) = broker.acquire(msgspec.structs.replace(request("ibm_torino", seconds=600), hold=hold))
    own = [opened_by_a_step(service, tag=lease.tag) for _ in range(3)]
    others = opened_by_a_step(service, tag="slurm-job:77")
    (released,) = broker.release(7, "The job ended.")
    assert released.state is LeaseState.RELEASED
    assert service.open_sessions() == [others]
    recorded = [session.session_id for session in journal.history.sessions(lease.id)]
    assert set(recorded) == {*own, *([lease.session_id] if hold is Hold.JOB else [])}


def test_the_end_of_the_job_leaves_alone_what_others_opened(
    broker: Broker, journal: Journal, service: Service
) -> None:
    (lease,) = broker.acquire(later("ibm_torino", seconds=600))
    (other,) = broker.acquire(request("ibm_torino", job_id=8))
    # Nothing proves whose these are: the first ends as the job does, the second outlives it.
    unused = opened_by_a_step(service, tag=None)
    by_hand = opened_by_a_step(service, tag=None, ends_in=28_800)
    broker.release(7, "The job ended.")
    assert service.open_sessions() == [other.session_id, unused, by_hand]
    assert journal.history.sessions(lease.id) == []


@pytest.mark.parametrize("names", [("alpha", "beta"), ("cluster", "cluster")])
def test_the_end_of_job_7_on_one_cluster_leaves_job_7_on_another_alone(
    tmp_path: Path, service: Service, names: tuple[str, str]
) -> None:
    """Two clusters use one account, each with a journal of its own; they may even have the same name."""
    with ExitStack() as stack:
        brokers, journals = [], []
        leases: list[Lease] = []
        for place, name in zip(("one", "other"), names, strict=True):
            (tmp_path / place).mkdir()
            config = configure(tmp_path / place)
            journals.append(stack.enter_context(Journal(config.journal)))
            brokers.append(Broker(config, journals[-1], service.connect, settle=0))
            asked = msgspec.structs.replace(later("ibm_torino", seconds=600), cluster=name)
            leases += brokers[-1].acquire(asked)
        mine, theirs = (opened_by_a_step(service, tag=lease.tag) for lease in leases)
        unused = opened_by_a_step(service, tag=None)

        brokers[0].release(7, "The job ended.")

        assert service.open_sessions() == [theirs, unused]
        assert [use.session_id for use in journals[0].history.sessions(leases[0].id)] == [mine]
        assert leases[0].tag.startswith(f"slurm-job:{names[0]}:7:")


def test_a_release_that_cannot_look_is_finished_later(broker: Broker, service: Service) -> None:
    (lease,) = broker.acquire(later("ibm_torino", seconds=600))
    stray = opened_by_a_step(service, tag=lease.tag)
    service.before["tags ibm_torino"] = raises(UnavailableError("away"))
    (lease,) = broker.release(7, "The job ended.")
    assert lease.state is LeaseState.RELEASING
    assert service.open_sessions() == [stray]
    service.before.clear()
    (lease,) = broker.release(7, "again")
    assert lease.state is LeaseState.RELEASED
    assert service.sessions[stray].state is SessionState.CLOSED


def test_a_requeued_job_gets_its_lease_when_what_the_last_run_opened_is_gone(
    broker: Broker, service: Service
) -> None:
    (lease,) = broker.acquire(later("ibm_torino", seconds=600))
    stray = opened_by_a_step(service, tag=lease.tag)
    service.before["tags ibm_torino"] = raises(UnavailableError("away"))
    broker.release(7, "The job was requeued.")
    with pytest.raises(UnavailableError):
        broker.acquire(later("ibm_torino"))
    service.before.clear()
    (lease,) = broker.acquire(later("ibm_torino"))
    assert lease.state is LeaseState.BOUND
    assert not service.sessions[stray].accepting_tasks
