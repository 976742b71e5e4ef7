# SPDX-License-Identifier: Apache-2.0
"""The broker chooses QPUs for jobs that do not name them, and takes the next one if need be."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from qpu_slurm.config.access import AccessRule, AccessRules
from qpu_slurm.config.attributes import Attributes
from qpu_slurm.config.budgets import ALL, Budget, BudgetsConfig, Period, Scope
from qpu_slurm.errors import MustWaitError, QpuSlurmError, RefusedError, RequestError, UnavailableError
from qpu_slurm.journal.model import Hold, LeaseState
from qpu_slurm.leases.broker import Broker
from qpu_slurm.providers.base import Traits
from tests.unit.memory_service import Service, configure, request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qpu_slurm.config import Config
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.journal.model import Lease


@pytest.fixture
def service() -> Service:
    service = Service()
    service.traits["ibm_fez"] = Traits(qubits=156, processor="heron-r2", error=0.003)
    service.traits["ibm_torino"] = Traits(qubits=133, processor="heron-r1", error=0.004)
    return service


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = configure(tmp_path)
    del config.qpus["ibm_paris"]  # its key is missing
    return config


def with_limit(config: Config, limit: int) -> Config:
    qpus = {name: msgspec.structs.replace(qpu, max_leases=limit) for name, qpu in config.qpus.items()}
    return msgspec.structs.replace(config, qpus=qpus)


def names(leases: tuple[Lease, ...]) -> list[str]:
    return [lease.qpu for lease in leases]


def raises(error: QpuSlurmError) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


def test_a_job_gets_the_best_qpu_and_is_told_why(broker: Broker, journal: Journal, service: Service) -> None:
    service.queues["ibm_fez"] = 3
    (lease,) = broker.acquire(request("any:qubits>=100"))
    assert (lease.qpu, lease.state) == ("ibm_torino", LeaseState.HELD)
    assert lease.chosen is not None
    assert lease.chosen.asked == "any:qubits>=100"
    assert lease.chosen.why == "Least expected wait: 0 s, error 0.004 (ibm_fez: 30 s, error 0.003)."
    # It is in the journal from the moment of the intent on: whoever is killed has left it.
    assert [event.what for event in journal.events(lease.id)][:2] == ["chosen", "intent"]
    (read,) = journal.with_choices(journal.leases())
    assert read.chosen == lease.chosen


def test_a_named_qpu_is_no_choice(broker: Broker, journal: Journal) -> None:
    (lease,) = broker.acquire(request("ibm_fez"))
    assert lease.chosen is None
    assert journal.with_choices([lease]) == [lease]


def test_jobs_that_have_a_qpu_count_as_a_wait(broker: Broker) -> None:
    found = [broker.acquire(request("any", job_id=number))[0].qpu for number in range(4)]
    assert sorted(found[:2]) == sorted(found[2:]) == ["ibm_fez", "ibm_torino"]


def test_several_qpus_keep_the_users_order(broker: Broker) -> None:
    assert names(broker.acquire(request("any:by=error", "ibm_torino", job_id=1))) == ["ibm_fez", "ibm_torino"]
    assert names(broker.acquire(request("ibm_torino", "any", job_id=2))) == ["ibm_torino", "ibm_fez"]
    assert sorted(names(broker.acquire(request("any", "any", job_id=3)))) == ["ibm_fez", "ibm_torino"]


def test_asking_twice_gives_the_same_qpu(broker: Broker, journal: Journal, service: Service) -> None:
    (first,) = broker.acquire(request("any", run="1"))
    service.queues[first.qpu] = 100
    (again,) = broker.acquire(request("any", run="1"))
    assert again == first
    assert len(service.open_sessions()) == 1
    # A requeued job is another run: it is chosen for once more.
    after = Broker(broker._config, journal, service.connect, settle=0)  # noqa: SLF001 - which has seen nothing
    (requeued,) = after.acquire(request("any", run="2"))
    assert requeued.qpu != first.qpu
    assert journal.lease(first.id).state is LeaseState.RELEASED


def test_components_that_start_at_once_make_one_choice(broker: Broker, service: Service) -> None:
    found: list[Lease] = []
    barrier = threading.Barrier(4)

    def start() -> None:
        barrier.wait(10)
        found.extend(broker.acquire(request("any", run="1")))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 4
    assert len({lease.id for lease in found}) == 1
    assert len(service.open_sessions()) == 1


@pytest.mark.parametrize(
    "error", [MustWaitError("It is being calibrated."), UnavailableError("It does not answer.")]
)
def test_the_next_qpu_is_taken_if_the_first_has_gone_meanwhile(
    broker: Broker, journal: Journal, service: Service, error: QpuSlurmError
) -> None:
    service.before["open ibm_fez"] = raises(error)
    (lease,) = broker.acquire(request("any:by=error"))
    assert lease.qpu == "ibm_torino"
    assert lease.chosen is not None
    assert str(error).rstrip(".") in lease.chosen.why
    states = {old.qpu: old.state for old in journal.leases(over=True)}
    assert states == {"ibm_fez": LeaseState.FAILED, "ibm_torino": LeaseState.HELD}


def test_a_named_qpu_that_is_away_is_not_blamed_on_the_choice(broker: Broker, service: Service) -> None:
    service.offline["ibm_torino"] = "maintenance"
    with pytest.raises(MustWaitError, match="ibm_torino is not available now: maintenance"):
        broker.acquire(request("ibm_torino", "any"))
    assert service.open_sessions() == []


def test_a_job_waits_if_every_qpu_has_gone(broker: Broker, service: Service) -> None:
    for name in ("ibm_fez", "ibm_torino"):
        service.before[f"open {name}"] = raises(MustWaitError(f"{name} went."))
    with pytest.raises(
        MustWaitError, match=r"No QPU is available now for any: .*ibm_fez went; .*ibm_torino went"
    ):
        broker.acquire(request("any"))


def test_a_refusal_of_the_service_is_the_jobs_end(broker: Broker, service: Service) -> None:
    service.before["open ibm_fez"] = raises(RefusedError("Your plan has ended."))
    with pytest.raises(RefusedError, match="Your plan has ended"):
        broker.acquire(request("any:by=error"))


def test_what_is_closed_away_or_full_is_not_chosen(
    config: Config, journal: Journal, service: Service
) -> None:
    broker = Broker(with_limit(config, 1), journal, service.connect, settle=0)
    journal.closings.close("ibm_fez", "new fridge", 0)
    (lease,) = broker.acquire(request("any:by=error", job_id=1))
    assert lease.qpu == "ibm_torino"
    assert lease.chosen is not None
    assert "ibm_fez is closed: new fridge" in lease.chosen.why
    with pytest.raises(MustWaitError, match="ibm_fez is closed: new fridge; ibm_torino is in use by job 1"):
        broker.acquire(request("any", job_id=2))
    journal.closings.open("ibm_fez")
    assert names(broker.acquire(request("any", job_id=2))) == ["ibm_fez"]
    # What a job has it keeps, though it is full now.
    assert names(broker.acquire(request("any", job_id=2))) == ["ibm_fez"]


def test_what_needs_a_key_that_the_job_lacks_is_not_chosen(broker: Broker, service: Service) -> None:
    service.queues["ibm_fez"] = 100
    assert names(broker.acquire(request("any", key=None))) == ["ibm_fez"]
    with pytest.raises(
        RequestError, match=r"no QPU meets any:qubits<150: .*ibm_torino needs your own API key"
    ):
        broker.acquire(request("any:qubits<150", job_id=8, key=None))


def test_what_the_rules_keep_from_a_job_is_not_chosen(
    config: Config, journal: Journal, service: Service
) -> None:
    rules = AccessRules(allow=(AccessRule(users=(4711,)),), default="deny")
    config.qpus["ibm_fez"] = msgspec.structs.replace(config.qpus["ibm_fez"], access_rules=rules)
    broker = Broker(config, journal, service.connect, settle=0)
    (lease,) = broker.acquire(request("any:by=error", job_id=1))
    assert lease.qpu == "ibm_torino"
    with pytest.raises(RequestError, match="ibm_fez is not for this job: it is for user"):
        broker.acquire(request("any:qubits>150", job_id=2))
    allowed = msgspec.structs.replace(request("any:by=error", job_id=3), user_id=4711)
    assert names(broker.acquire(allowed)) == ["ibm_fez"]


def test_what_no_budget_is_left_for_is_not_chosen(config: Config, journal: Journal, service: Service) -> None:
    spent = Budget(scope=Scope(ALL, ALL, "ibm_torino"), period=Period.MONTH, limit=0.0)
    budgeted = msgspec.structs.replace(config, budgets=BudgetsConfig(standing=(spent,)))
    broker = Broker(budgeted, journal, service.connect, settle=0)
    service.queues["ibm_fez"] = 100
    (lease,) = broker.acquire(request("any", job_id=1))
    assert lease.qpu == "ibm_fez"
    assert lease.chosen is not None
    with pytest.raises(RequestError, match=r"no QPU meets any:qubits<150: .*ibm_torino is beyond a budget: "):
        broker.acquire(request("any:qubits<150", job_id=2))


def test_a_budget_that_is_reserved_is_waited_for(
    config: Config, journal: Journal, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qpu_slurm.leases.choosing._TURN", 0.0)
    little = Budget(scope=Scope(ALL, ALL, "ibm_torino"), period=Period.MONTH, limit=60.0)
    budgeted = msgspec.structs.replace(config, budgets=BudgetsConfig(standing=(little,)))
    broker = Broker(budgeted, journal, service.connect, settle=0)
    assert names(broker.acquire(request("any:qubits<150", job_id=1))) == ["ibm_torino"]
    with pytest.raises(MustWaitError, match="ibm_torino is beyond a budget for now"):
        broker.acquire(request("any:qubits<150", job_id=2))
    assert names(broker.acquire(request("any:qubits>100", job_id=2))) == ["ibm_fez"]


def test_the_admin_says_what_the_service_does_not(config: Config, journal: Journal, service: Service) -> None:
    service.traits["ibm_fez"] = Traits(error=0.5)
    attributes = Attributes(qubits=20, error=0.1)
    config.qpus["ibm_fez"] = msgspec.structs.replace(config.qpus["ibm_fez"], attributes=attributes)
    broker = Broker(config, journal, service.connect, settle=0)
    (lease,) = broker.acquire(request("any:qubits=20"))
    assert lease.qpu == "ibm_fez"
    # The service's own word comes first.
    with pytest.raises(RequestError, match=r"ibm_fez has error=0\.5"):
        broker.acquire(request("any:error<=0.1,qubits=20", job_id=8))


def test_a_qpus_configuration_is_asked_for_where_a_wish_takes_it(broker: Broker, service: Service) -> None:
    service.traits.clear()
    broker.acquire(request("any:by=error", job_id=1))
    assert not any(call.startswith("device") for call in service.calls)
    # The service in memory has QPUs of two qubits, and does not list how many.
    for number in range(2, 5):
        broker.acquire(request("any:qubits=2", job_id=number))
    assert service.calls.count("device ibm_fez") == service.calls.count("device ibm_torino") <= 2
    service.before["device ibm_fez"] = raises(UnavailableError("It does not answer."))
    with pytest.raises(RequestError, match="ibm_torino does not say its max_shots"):
        broker.acquire(request("ibm_torino|ibm_paris:max_shots>1", job_id=9))


def test_a_job_waits_for_a_configuration_that_cannot_be_read_now(
    broker: Broker, journal: Journal, service: Service
) -> None:
    """It may be what the job wants: nothing is known that would end the job."""
    service.traits.clear()
    service.before["device ibm_fez"] = raises(UnavailableError("It does not answer."))
    with pytest.raises(UnavailableError, match=r"ibm_fez does not say what it is like: It does not answer"):
        broker.acquire(request("any:qubits=2,name=ibm_fez", job_id=1))
    (lease,) = broker.acquire(request("any:qubits=2", job_id=2))
    assert lease.qpu == "ibm_torino"
    # Nor does it end the job that the QPU is closed as well.
    service.before["device ibm_fez"] = raises(UnavailableError("It does not answer."))
    journal.closings.close("ibm_fez", "maintenance", 0)
    with pytest.raises(UnavailableError, match="ibm_fez is closed: maintenance"):
        broker.acquire(request("any:qubits=2,name=ibm_fez", job_id=4))
    # What is known counts.
    service.before["device ibm_fez"] = raises(UnavailableError("It does not answer."))
    with pytest.raises(RequestError, match="ibm_fez has name=ibm_fez"):
        broker.acquire(request("any:qubits=2,name=ibm_brisbane", job_id=3))


def test_what_can_never_be_met_ends_the_job(broker: Broker, journal: Journal) -> None:
    with pytest.raises(
        RequestError, match=r"no QPU meets any:qubits>1000: ibm_fez has qubits=156; ibm_torino"
    ):
        broker.acquire(request("any:qubits>1000"))
    journal.blocked_users.add(1000, "on holiday", 0)
    with pytest.raises(RequestError, match="You may not use QPUs"):
        broker.acquire(request("any"))


def test_a_job_that_only_wants_to_know_a_qpu_is_bound_to_the_best(broker: Broker, service: Service) -> None:
    wish = msgspec.structs.replace(request(), bind=("any:by=error",))
    (lease,) = broker.acquire(wish)
    assert (lease.qpu, lease.state, lease.hold) == ("ibm_fez", LeaseState.BOUND, Hold.NONE)
    assert lease.chosen is not None
    assert service.open_sessions() == []


def test_services_are_asked_once_for_many_jobs(broker: Broker, service: Service) -> None:
    for number in range(5):
        broker.acquire(request("any:name=ibm_fez", job_id=number, key=None))
    assert service.calls.count("statuses ibm_fez") == 1
    # Alternatives are all that is asked about.
    broker.acquire(request("ibm_torino|ibm_fez", job_id=9))
    assert "statuses ibm_torino" in service.calls
    # Nor is the QPU that was chosen asked for once more.
    assert "status ibm_fez" not in service.calls


def test_how_long_things_take_is_learnt_from_the_journal(
    config: Config, journal: Journal, service: Service
) -> None:
    assert journal.paces.by_qpu() == {}
    broker = Broker(config, journal, service.connect, settle=0)
    (slow,) = broker.acquire(request("ibm_fez", job_id=1))
    broker.release(1, "done")
    with journal._database.transaction() as db:  # noqa: SLF001 - as the accountant has it from a service
        db.execute(
            "UPDATE sessions SET locked_seconds = 500, executed_seconds = 90 WHERE session_id = ?",
            (slow.session_id,),
        )
        for number in range(3):
            db.execute(
                "INSERT INTO tasks (task_id, session_id, status) VALUES (?, ?, 'completed')",
                (f"t{number}", slow.session_id),
            )
    pace = journal.paces.by_qpu()["ibm_fez"]
    assert (pace.session, pace.task) == (500, 30)
    service.queues |= {"ibm_fez": 2, "ibm_torino": 5}
    (lease,) = Broker(config, journal, service.connect, settle=0).acquire(request("any", job_id=2))
    assert lease.qpu == "ibm_torino"
    assert lease.chosen is not None
    assert "50 s, error 0.004 (ibm_fez: 60 s" in lease.chosen.why
