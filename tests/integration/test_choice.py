# SPDX-License-Identifier: Apache-2.0
"""A QPU is chosen when a job starts, with and without the gateway: the service's real answers decide."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.errors import MustWaitError, RequestError, UnavailableError
from qpu_slurm.leases.broker import Broker
from qpu_slurm_devkit.emulator import Fault
from tests.integration.gateway_site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.lifecycle.leasing import Leasing
    from qpu_slurm_devkit.emulator import Emulator

NOT_AVAILABLE = '{"errors": [{"code": 1004, "message": "Warming up."}]}'


@pytest.fixture(params=["gateway", "here"])
def broker(request: pytest.FixtureRequest, site: Site) -> Leasing:
    return site.hooks() if request.param == "gateway" else site.broker


@pytest.fixture
def newcomer(site: Site, emulator: Emulator) -> Iterator[Broker]:
    """Return a broker that has not asked the service yet; what it has seen of the QPUs is forgotten."""
    yield Broker(site.config, site.journal, settle=0)
    emulator.clear_faults()
    for name in site.config.qpus:
        site.journal.seen_qpus.note(name, asked_at=datetime.now(UTC), online=True)


@pytest.mark.parametrize(
    ("wish", "name"),
    [
        ("any:qubits>=150", "ibm_fez"),
        ("any:num_qubits<150", "torino"),
        ("any:processor=heron-r2", "ibm_fez"),
        ("any:processor_type=heron,name!=ibm_*", "torino"),
        ("any:is_simulator=false,by=error", "torino"),
        ("ibm_fez|torino:qubits=133", "torino"),
    ],
)
def test_constraints_are_met_by_what_the_service_publishes(
    site: Site, broker: Leasing, wish: str, name: str
) -> None:
    (lease,) = broker.acquire(site.request(wish))
    assert lease.qpu == name
    assert lease.chosen is not None
    assert lease.chosen.asked == wish
    broker.release(lease.job_id, "Done.")


@pytest.mark.parametrize("by_gateway", [True, False], ids=["gateway", "here"])
def test_the_shortest_wait_is_chosen(emulator: Emulator, *, by_gateway: bool) -> None:
    # How long jobs took on each QPU before would count, so none did.
    with Site(emulator) as site:
        broker = site.start().hooks() if by_gateway else site.broker
        leases = [broker.acquire(site.request("any"))[0] for _ in range(4)]
        assert sorted(lease.qpu for lease in leases) == ["ibm_fez", "ibm_fez", "torino", "torino"]
        for lease in leases:
            broker.release(lease.job_id, "Done.")


def test_the_next_qpu_is_taken_if_the_chosen_one_goes_away(
    site: Site, broker: Leasing, emulator: Emulator
) -> None:
    (before,) = broker.acquire(site.request("any:by=error"))
    assert before.qpu == "torino"
    # The broker has seen it a moment ago, and does not ask again; the session is what fails.
    emulator.inject(Fault(method="POST", path="/sessions", status=400, body=NOT_AVAILABLE))
    (lease,) = broker.acquire(site.request("any:by=error"))
    assert lease.qpu == "ibm_fez"
    assert lease.chosen is not None
    assert lease.chosen.why.startswith("Least error")
    assert "torino could not be had: ibm_torino is not available now: Warming up." in lease.chosen.why
    for job_id in (before.job_id, lease.job_id):
        broker.release(job_id, "Done.")


def test_a_qpu_whose_session_does_not_come_does_not_take_all_of_the_time(
    site: Site, newcomer: Broker, emulator: Emulator
) -> None:
    """Half of acquire_timeout is for the other QPUs."""
    emulator.inject(Fault(method="POST", path="/sessions", status=503, times=4))
    (lease,) = newcomer.acquire(site.request("any:by=error"))
    assert lease.qpu == "ibm_fez"
    emulator.clear_faults()
    newcomer.release(lease.job_id, "Done.")


def test_a_job_waits_if_nothing_is_available(site: Site, newcomer: Broker, emulator: Emulator) -> None:
    for name in ("ibm_fez", "ibm_torino"):
        emulator.set_backend(name, "paused", "maintenance until noon")
    with pytest.raises(MustWaitError, match=r"No QPU is available now for any: .*maintenance until noon"):
        newcomer.acquire(site.request("any"))
    assert emulator.sessions() == []


def test_a_service_that_does_not_answer_is_an_outage(
    site: Site, newcomer: Broker, emulator: Emulator
) -> None:
    emulator.inject(Fault(path="/backends", status=503, times=None))
    with pytest.raises(
        UnavailableError, match=r"No QPU is available now for any:q.*: .*not answer"
    ) as caught:
        newcomer.acquire(site.request("any:qubits>=100"))
    assert not isinstance(caught.value, MustWaitError)


def test_a_wish_that_nothing_can_meet_is_one_sentence(site: Site, broker: Leasing) -> None:
    with pytest.raises(
        RequestError, match="no QPU meets any:qubits>1000: ibm_fez has qubits=156; torino"
    ) as one:
        broker.acquire(site.request("any:qubits>1000"))
    assert "own needs your own API key" in str(one.value)


def test_components_that_start_at_once_share_one_choice(
    site: Site, broker: Leasing, emulator: Emulator
) -> None:
    wanted = site.request("any")
    with ThreadPoolExecutor(6) as pool:
        found = [leases[0] for leases in pool.map(lambda _: broker.acquire(wanted), range(6))]
    assert len({lease.id for lease in found}) == 1
    assert len(emulator.sessions()) == 1
    broker.release(wanted.job_id, "Done.")
