# SPDX-License-Identifier: Apache-2.0
"""The broker, killed at every step that it takes, and the power lost at every one."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from qpu_slurm.journal.journal import Journal
from qpu_slurm.leases.broker import Broker
from qpu_slurm.system.deadline import NEVER, Deadline
from tests.unit.memory_service import Killed, Life, Mortal, Service, configure, request
from tests.unit.power import left_of, power

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qpu_slurm.providers.base import Access, Provider

__all__ = ["power"]  # a fixture


def first_that_dies(work: Callable[[Broker], object], prepare: Callable[[int], Broker]) -> Iterator[int]:
    """Run `work` again and again, killed one step later each time, until it lives."""
    steps = 0
    while True:
        steps += 1
        try:
            work(prepare(steps))
        except Killed:
            yield steps
        else:
            return


@pytest.fixture
def dead() -> Iterator[ExitStack]:
    """Return what closes the files of the processes that died, as the system does."""
    with ExitStack() as dead:
        yield dead


@pytest.mark.usefixtures("power")
@pytest.mark.parametrize("lost", ["process", "power"])
@pytest.mark.parametrize("then", ["acquire", "release"])
@pytest.mark.parametrize("killed_in", ["acquire", "release"])
def test_killed_at_any_step_nothing_is_left_behind_and_nothing_is_opened_twice(
    tmp_path: Path, dead: ExitStack, killed_in: str, then: str, lost: str
) -> None:
    config, directory, service = configure(tmp_path), tmp_path, Service()

    def prepare(steps: int) -> Broker:
        nonlocal service
        service = Service()
        journal = dead.enter_context(Journal(directory / f"{killed_in}-{then}-{steps}.sqlite"))
        if killed_in == "release":
            Broker(config, journal, service.connect, settle=0).acquire(request("ibm_fez", "ibm_torino"))
        life = Life(steps)
        mortal: Any = Mortal(journal, life)

        def connect(access: Access, *, deadline: Deadline = NEVER) -> Provider:
            return cast("Provider", Mortal(service.connect(access, deadline=deadline), life))

        return Broker(config, mortal, connect, settle=0)

    def work(broker: Broker) -> None:
        if killed_in == "acquire":
            broker.acquire(request("ibm_fez", "ibm_torino"))
        else:
            broker.release(7, "The job ended.")

    deaths = 0
    for steps in first_that_dies(work, prepare):
        deaths += 1
        path = directory / f"{killed_in}-{then}-{steps}.sqlite"
        with Journal(path if lost == "process" else left_of(path)) as journal:
            broker = Broker(config, journal, service.connect, settle=0)
            if then == "acquire":
                leases = broker.acquire(request("ibm_fez", "ibm_torino"))
                assert {lease.session_id for lease in leases} == set(service.open_sessions())
                assert len(service.sessions) <= (2 if killed_in == "acquire" else 4)
            broker.release(7, "The job ended.")
            assert service.open_sessions() == []
            assert journal.leases() == []
            assert not journal.known_sessions(datetime.now(UTC))
    assert deaths > 10


@pytest.mark.usefixtures("power")
def test_a_number_that_a_lease_had_does_not_come_again_after_a_power_loss(tmp_path: Path) -> None:
    """A job key is made of it: who has the key of one lease has none of another."""
    config = configure(tmp_path)
    with Journal(config.journal) as journal:
        [lease] = Broker(config, journal, Service().connect).acquire(
            msgspec.structs.replace(request(), bind=("ibm_fez",))
        )
    with Journal(left_of(config.journal)) as journal:
        assert journal.bind(job_id=8, user_id=1001, qpu="ibm_fez").id != lease.id


@pytest.mark.usefixtures("power")
def test_a_qpu_that_was_closed_stays_closed_after_a_power_loss(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.closings.close("ibm_fez", "maintenance", 0)
    with Journal(left_of(path)) as journal:
        assert journal.closings.all()["ibm_fez"].reason == "maintenance"
