# SPDX-License-Identifier: Apache-2.0
"""How many jobs may have a QPU at once, and QPUs that the admin has closed."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from qpu_slurm.errors import MustWaitError, UnavailableError
from qpu_slurm.leases import broker as broker_module
from qpu_slurm.leases.broker import Broker
from tests.unit.memory_service import Service, request
from tests.unit.test_leases import bind, raises

if TYPE_CHECKING:
    from qpu_slurm.config import Config
    from qpu_slurm.journal.journal import Journal


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "_TURN", 0.0)


@pytest.fixture
def limited(config: Config, journal: Journal, service: Service) -> Broker:
    """Return a broker that gives ibm_fez to one job at a time, and ibm_torino to two."""
    qpus = config.qpus | {
        "ibm_fez": msgspec.structs.replace(config.qpus["ibm_fez"], exclusive=True, max_leases=5),
        "ibm_torino": msgspec.structs.replace(config.qpus["ibm_torino"], max_leases=2),
    }
    return Broker(msgspec.structs.replace(config, qpus=qpus), journal, service.connect, settle=0)


def test_an_exclusive_qpu_is_one_jobs_at_a_time(limited: Broker, service: Service) -> None:
    [first] = limited.acquire(request("ibm_fez"))
    with pytest.raises(
        MustWaitError, match=r"ibm_fez is in use by job 7, the most that may use it at once\."
    ):
        limited.acquire(request("ibm_torino", "ibm_fez", job_id=8))
    assert service.open_sessions() == [first.session_id]
    # Its own lease does not stand in a job's way.
    assert limited.acquire(request("ibm_fez")) == (first,)
    limited.release(7, "The job ended.")
    assert limited.acquire(request("ibm_fez", job_id=8))


def test_as_many_jobs_as_may_have_a_qpu(limited: Broker) -> None:
    limited.acquire(request("ibm_torino", job_id=1))
    limited.acquire(request("ibm_torino", job_id=2))
    with pytest.raises(MustWaitError, match="jobs 1, 2, the most that may use it at once"):
        limited.acquire(request("ibm_torino", job_id=3))


def test_who_never_gets_a_session_is_not_counted(limited: Broker) -> None:
    limited.acquire(bind("ibm_fez", job_id=1))
    limited.acquire(request("ibm_fez", job_id=2))
    limited.acquire(bind("ibm_fez", job_id=3))


def test_what_is_not_released_yet_counts_until_it_has_ended_by_itself(
    limited: Broker, journal: Journal, service: Service
) -> None:
    limited.acquire(request("ibm_fez"))
    service.before["cancel ibm_fez"] = raises(UnavailableError("away"))
    limited.release(7, "The job ended.")
    with pytest.raises(MustWaitError):
        limited.acquire(request("ibm_fez", job_id=8))
    gone = datetime.now(UTC) - timedelta(seconds=1)
    [lease] = journal.leases()
    journal._database._db.execute(  # noqa: SLF001 - time passes
        "UPDATE leases SET expires_at = ? WHERE id = ?", (gone.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), lease.id)
    )
    limited.acquire(request("ibm_fez", job_id=8))


def test_a_job_waits_for_the_one_before_it_to_be_released(
    limited: Broker, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "_TURN", 30.0)
    limited.acquire(request("ibm_fez"))
    epilog = threading.Timer(0.3, limited.release, (7, "The job ended."))
    epilog.start()
    [lease] = limited.acquire(request("ibm_fez", job_id=8))
    epilog.join()
    assert service.open_sessions() == [lease.session_id]


def test_many_at_once_and_one_gets_it(limited: Broker, service: Service) -> None:
    refused = []

    def start(job_id: int) -> None:
        try:
            limited.acquire(request("ibm_fez", job_id=job_id))
        except MustWaitError as error:
            refused.append(error)

    threads = [threading.Thread(target=start, args=(job_id,)) for job_id in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    assert len(service.open_sessions()) == 1


def test_a_closed_qpu_is_left_to_those_who_have_it(
    limited: Broker, journal: Journal, service: Service
) -> None:
    held = limited.acquire(request("ibm_torino", run="100"))
    journal.closings.close("ibm_torino", "New fridge.", 0)
    with pytest.raises(MustWaitError, match=r"^ibm_torino is closed: New fridge\.$"):
        limited.acquire(request("ibm_fez", "ibm_torino", job_id=8))
    assert limited.acquire(request("ibm_torino", run="100")) == held
    with pytest.raises(MustWaitError):  # its next run is a new job
        limited.acquire(request("ibm_torino", run="200"))
    assert service.open_sessions() == []
    journal.closings.open("ibm_torino")
    assert limited.acquire(request("ibm_fez", "ibm_torino", job_id=8))
