# SPDX-License-Identifier: Apache-2.0
"""The broker's order of things, against a service in memory; tests/integration has the real requests."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from qpu_slurm.config import Config, OutageConfig
from qpu_slurm.errors import (
    AnswerLostError,
    ConfigError,
    JournalError,
    MustWaitError,
    NoLeaseError,
    QpuSlurmError,
    RefusedError,
    RequestError,
    UnavailableError,
)
from qpu_slurm.journal.model import LeaseRequest, LeaseState
from qpu_slurm.leases.broker import Broker
from qpu_slurm.leases.locks import Locks
from qpu_slurm.system.deadline import Deadline
from tests.unit.memory_service import KEY, Service, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.journal.model import Lease


def raises(error: QpuSlurmError) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


def states(journal: Journal) -> dict[str, LeaseState]:
    return {lease.qpu: lease.state for lease in journal.leases(over=True)}


def test_acquire_opens_one_session_for_each_qpu(broker: Broker, journal: Journal, service: Service) -> None:
    torino, fez = broker.acquire(request("ibm_torino", "ibm_fez"))
    assert (torino.qpu, fez.qpu) == ("ibm_torino", "ibm_fez")
    assert {torino.session_id, fez.session_id} == set(service.open_sessions())
    assert torino.state is fez.state is LeaseState.HELD
    assert journal.leases() == [torino, fez]
    # The user's own key is kept for the release; the admin's is not.
    key = journal.api_key(torino.id)
    assert key is not None
    assert key.reveal() == KEY.reveal()
    assert journal.api_key(fez.id) is None
    assert service.keys == [KEY.reveal(), "the-admins-key"]


def test_acquire_again_returns_the_same_leases(broker: Broker, service: Service) -> None:
    first = broker.acquire(request("ibm_fez"))
    assert broker.acquire(request("ibm_fez")) == first
    both = broker.acquire(request("ibm_fez", "ibm_torino"))
    assert both[0] == first[0]
    assert len(service.sessions) == 2


@pytest.mark.parametrize(
    ("qpu", "seconds", "ttl"),
    [
        ("ibm_fez", 1800, 1800),
        ("ibm_fez", 10**9, 28_800),
        ("ibm_torino", 1800, 600),
        ("ibm_torino", 599, 599),
        ("ibm_fez", 0, 1),
    ],
)
def test_a_session_lives_no_longer_than_the_job_and_the_admin_let_it(
    broker: Broker, service: Service, qpu: str, seconds: int, ttl: int
) -> None:
    before = datetime.now(UTC)
    [lease] = broker.acquire(request(qpu, seconds=seconds))
    assert service.ttls == [ttl]
    assert lease.expires_at is not None
    assert before <= lease.expires_at - timedelta(seconds=ttl) <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (request("ibm_kyiv"), RequestError("ibm_kyiv")),
        (request("ibm_fez", "ibm_torino", key=None), RequestError("QISKIT_IBM_TOKEN")),
        (request("ibm_fez", "ibm_paris"), ConfigError("missing")),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_asked(
    broker: Broker, journal: Journal, service: Service, wanted: LeaseRequest, error: QpuSlurmError
) -> None:
    with pytest.raises(type(error), match=str(error)):
        broker.acquire(wanted)
    assert service.calls == []
    assert journal.leases(over=True) == []


def test_a_qpu_that_is_offline_costs_no_session_anywhere(
    broker: Broker, journal: Journal, service: Service
) -> None:
    service.offline["ibm_torino"] = "maintenance until noon"
    with pytest.raises(UnavailableError, match=r"ibm_torino .*: maintenance until noon"):
        broker.acquire(request("ibm_fez", "ibm_torino"))
    assert service.sessions == {}
    assert journal.leases(over=True) == []


@pytest.mark.parametrize(
    ("error", "torino"),
    [
        (RefusedError("no session on the Open plan"), LeaseState.FAILED),
        (UnavailableError("the service is away"), LeaseState.FAILED),
        # Something may have been made that nobody knows of: it has to be looked for.
        (AnswerLostError("no answer came"), LeaseState.RELEASING),
    ],
)
def test_all_or_none(
    broker: Broker, journal: Journal, service: Service, error: QpuSlurmError, torino: LeaseState
) -> None:
    service.before["open ibm_torino"] = raises(error)
    with pytest.raises(type(error), match=str(error)):
        broker.acquire(request("ibm_fez", "ibm_torino"))
    assert len(service.sessions) == 1
    assert service.open_sessions() == []
    fez, first, *again = journal.leases(over=True)
    assert (fez.state, first.state) == (LeaseState.RELEASED, torino)
    assert str(error) in fez.reason
    assert str(error) in first.reason
    # It was asked for several times, and each time there may be a session.
    assert bool(again) is isinstance(error, AnswerLostError)
    assert all(lease.state is LeaseState.RELEASED and lease.intended_at for lease in again)


def test_what_the_job_had_before_is_not_taken_from_it(broker: Broker, service: Service) -> None:
    [fez] = broker.acquire(request("ibm_fez"))
    service.before["open ibm_torino"] = raises(UnavailableError("away"))
    with pytest.raises(UnavailableError):
        broker.acquire(request("ibm_fez", "ibm_torino"))
    assert service.open_sessions() == [fez.session_id]


def test_a_session_that_the_service_closed_is_replaced(
    broker: Broker, journal: Journal, service: Service
) -> None:
    [first] = broker.acquire(request("ibm_fez"))
    [forgotten] = broker.acquire(request("ibm_torino"))
    service.close(str(first.session_id))
    del service.sessions[str(forgotten.session_id)]
    again = broker.acquire(request("ibm_fez", "ibm_torino"))
    assert {lease.session_id for lease in again} == set(service.open_sessions())
    assert journal.lease(first.id).state is journal.lease(forgotten.id).state is LeaseState.RELEASED
    assert "closed" in journal.lease(first.id).reason


def test_release_ends_what_the_job_holds_and_nothing_else(
    broker: Broker, journal: Journal, service: Service
) -> None:
    mine = broker.acquire(request("ibm_fez", "ibm_torino"))
    [other] = broker.acquire(request("ibm_fez", job_id=8))
    released = broker.release(7, "The job ended.")
    assert [lease.id for lease in released] == [lease.id for lease in mine]
    assert {(lease.state, lease.reason) for lease in released} == {(LeaseState.RELEASED, "The job ended.")}
    assert service.open_sessions() == [other.session_id]
    assert journal.api_key(mine[1].id) is None
    assert broker.release(7, "The job ended.") == ()
    assert broker.release(4711, "never seen") == ()


@pytest.mark.parametrize(
    "error", [UnavailableError("away"), RefusedError("key revoked"), AnswerLostError("silence")]
)
def test_a_release_that_fails_can_be_finished_later(
    broker: Broker, journal: Journal, service: Service, error: QpuSlurmError
) -> None:
    broker.acquire(request("ibm_fez", "ibm_torino"))
    service.before["cancel ibm_fez"] = raises(error)
    fez, torino = broker.release(7, "The job ended.")
    assert (fez.state, torino.state) == (LeaseState.RELEASING, LeaseState.RELEASED)
    assert journal.events(fez.id)[-1].detail == str(error)
    assert len(service.open_sessions()) == 1

    service.before.clear()
    [fez] = broker.release(7, "by hand")
    assert (fez.state, fez.reason) == (LeaseState.RELEASED, "The job ended.")
    assert service.open_sessions() == []


def test_a_session_that_has_expired_needs_no_service_to_be_over(
    broker: Broker, journal: Journal, service: Service
) -> None:
    intent = journal.intend(job_id=7, user_id=1, qpu="ibm_fez", expires_at=datetime.now(UTC))
    journal.hold(intent.id, "gone", datetime.now(UTC))
    service.before["cancel ibm_fez"] = raises(UnavailableError("away"))
    [lease] = broker.release(7, "The job ended.")
    assert lease.state is LeaseState.RELEASED


def test_a_qpu_that_is_not_configured_any_more_is_kept_in_mind(
    broker: Broker, journal: Journal, config: Config, service: Service
) -> None:
    broker.acquire(request("ibm_fez"))
    without = msgspec.structs.replace(config, qpus={"ibm_torino": config.qpus["ibm_torino"]})
    [lease] = Broker(without, journal, service.connect).release(7, "The job ended.")
    assert lease.state is LeaseState.RELEASING
    assert "ibm_fez" in journal.events(lease.id)[-1].detail


def test_a_requeued_job_starts_with_a_session_of_its_own(broker: Broker, service: Service) -> None:
    [first] = broker.acquire(request("ibm_fez"))
    service.before["cancel ibm_fez"] = raises(UnavailableError("away"))
    broker.release(7, "requeued")
    with pytest.raises(UnavailableError):  # what the last run held is not gone yet
        broker.acquire(request("ibm_fez"))
    service.before.clear()
    [second] = broker.acquire(request("ibm_fez"))
    assert service.open_sessions() == [second.session_id]
    assert second.id != first.id


@pytest.mark.parametrize(
    ("left_behind", "events"),
    [
        (0, ["intent", "intent", "held"]),
        (1, ["intent", "adopted", "renewed"]),
        # The second is of somebody who works on the account without Slurm, a moment later.
        (2, ["intent", "adopted", "renewed"]),
    ],
)
def test_an_intent_whose_process_died_is_fulfilled_once(
    broker: Broker, journal: Journal, service: Service, left_behind: int, events: list[str]
) -> None:
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    intent = journal.intend(job_id=7, user_id=1000, qpu="ibm_fez", expires_at=in_an_hour)
    for _ in range(left_behind):
        service.create("ibm_fez")
    [lease] = broker.acquire(request("ibm_fez"))
    assert (lease.id, lease.session_id) == (intent.id, "s1")
    assert len(service.sessions) == max(left_behind, 1)
    assert [event.what for event in journal.events(lease.id)] == events
    broker.release(7, "The job ended.")
    assert len(service.open_sessions()) == max(left_behind - 1, 0)


def test_a_session_that_shows_late_is_waited_for(config: Config, journal: Journal, service: Service) -> None:
    journal.intend(job_id=7, user_id=1, qpu="ibm_fez", expires_at=datetime.now(UTC) + timedelta(hours=1))
    timer = threading.Timer(0.3, lambda: service.create("ibm_fez"))
    timer.start()
    [lease] = Broker(config, journal, service.connect, settle=3).release(7, "cancelled")
    timer.join()
    assert lease.state is LeaseState.RELEASED
    assert len(service.sessions) == 1
    assert service.open_sessions() == []


def test_a_session_that_cannot_be_recorded_is_ended(
    broker: Broker, journal: Journal, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "hold", lambda *_, **__: raises(JournalError("the disk is full"))())
    with pytest.raises(JournalError):
        broker.acquire(request("ibm_fez"))
    assert len(service.sessions) == 1
    assert service.open_sessions() == []


def test_a_job_that_ends_while_its_session_is_opened_leaves_none(
    broker: Broker, config: Config, journal: Journal, service: Service
) -> None:
    released: list[tuple[Lease, ...]] = []
    epilog = threading.Thread(
        target=lambda: released.append(Broker(config, journal, service.connect).release(7, "cancelled"))
    )

    def cancelled_meanwhile() -> None:
        epilog.start()
        while not any(lease.state is LeaseState.RELEASING for lease in journal.leases()):
            epilog.join(0.01)

    service.after["open ibm_fez"] = cancelled_meanwhile
    with pytest.raises(NoLeaseError, match="Job 7 was ended"):
        broker.acquire(request("ibm_fez"))
    epilog.join(10)
    assert [lease.state for lease in released[0]] == [LeaseState.RELEASED]
    assert service.open_sessions() == []
    assert len(service.sessions) == 1


def test_acquire_waits_for_its_turn_and_gives_up_in_time(
    config: Config, journal: Journal, service: Service
) -> None:
    quick = msgspec.structs.replace(config, outage=OutageConfig(acquire_timeout=1))
    broker = Broker(quick, journal, service.connect)
    with (
        Locks(config.journal).looking(config.qpu("ibm_fez"), deadline=Deadline.after(1)),
        pytest.raises(MustWaitError, match="Many jobs start on ibm_fez at once"),
    ):
        broker.acquire(request("ibm_fez"))
    assert journal.leases(job_id=7, over=True) == []
    assert broker.acquire(request("ibm_fez"))


def test_jobs_that_want_the_same_qpus_in_another_order_do_not_wait_for_each_other_for_ever(
    config: Config, journal: Journal, service: Service
) -> None:
    orders = [("ibm_fez", "ibm_torino"), ("ibm_torino", "ibm_fez")]

    def work(job_id: int) -> None:
        broker = Broker(config, journal, service.connect)
        broker.acquire(request(*orders[job_id % 2], job_id=job_id))

    threads = [threading.Thread(target=work, args=[job_id]) for job_id in range(1, 21)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(journal.leases()) == len(service.open_sessions()) == 40


# What a job is only bound to.


def bind(*names: str, job_id: int = 7, run: str = "") -> LeaseRequest:
    return msgspec.structs.replace(request(job_id=job_id, run=run), bind=names)


def test_binding_asks_nobody_and_needs_no_key(broker: Broker, journal: Journal, service: Service) -> None:
    (lease,) = broker.acquire(msgspec.structs.replace(bind("ibm_torino"), api_key=None))
    assert (lease.state, lease.session_id, lease.expires_at) == (LeaseState.BOUND, None, None)
    assert service.calls == []
    assert broker.acquire(bind("ibm_torino")) == (lease,)
    (over,) = broker.release(7, "The job ended.")
    assert (over.id, over.state, over.reason) == (lease.id, LeaseState.RELEASED, "The job ended.")
    assert service.calls == []
    assert broker.release(7, "again") == ()
    assert [event.what for event in journal.events(lease.id)] == ["bound", "renewed", "released"]


def test_a_session_comes_before_being_bound_whichever_came_first(broker: Broker, journal: Journal) -> None:
    (bound,) = broker.acquire(bind("ibm_fez"))
    (held,) = broker.acquire(request("ibm_fez"))
    assert broker.acquire(bind("ibm_fez")) == (held,)
    assert journal.leases() == [held]
    assert journal.lease(bound.id).reason == "The job gets a session."


def test_a_job_is_bound_although_its_last_run_is_not_released_yet(
    broker: Broker, journal: Journal, service: Service
) -> None:
    broker.acquire(request("ibm_fez"))
    service.before["cancel ibm_fez"] = raises(UnavailableError("away"))
    broker.release(7, "The job was requeued.")
    (bound,) = broker.acquire(bind("ibm_fez"))
    assert bound.state is LeaseState.BOUND
    del service.before["cancel ibm_fez"]
    assert {lease.state for lease in broker.release(7, "The job ended.")} == {LeaseState.RELEASED}
    assert journal.leases() == []


def test_a_qpu_that_is_not_there_binds_to_none(broker: Broker, journal: Journal, service: Service) -> None:
    with pytest.raises(RequestError):
        broker.acquire(msgspec.structs.replace(request("ibm_fez"), bind=("ibm_x",)))
    assert journal.leases() == []
    assert service.open_sessions() == []
