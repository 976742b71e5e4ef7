# SPDX-License-Identifier: Apache-2.0
"""The provider of the IBM Quantum System API: what every provider has to do, and what is its own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from qpu_slurm.errors import AnswerLostError, NotFoundError, RefusedError, UnavailableError
from qpu_slurm.providers.base import TaskStatus
from qpu_slurm.providers.ibm import Patience
from qpu_slurm.providers.ibm_system.access import Storage, SystemAccess
from qpu_slurm.providers.ibm_system.service import QuantumSystem
from qpu_slurm.system.deadline import NEVER, Deadline
from qpu_slurm.system.secret import Secret
from qpu_slurm_devkit.emulator import Drop, Fault
from tests.integration.emulated_service import EmulatedService
from tests.integration.test_emulator_system import SystemApi
from tests.provider_conformance import (
    GateConformance,
    NetworkConformance,
    QpuConformance,
    TaskConformance,
    ended,
)

if TYPE_CHECKING:
    from qpu_slurm_devkit.emulator import Emulator

PATIENCE = Patience(call=10, settle=0.2)


class IbmSystem(EmulatedService):
    """The API on the premises."""

    def connect(self, backend: str) -> QuantumSystem:
        return QuantumSystem(self.access(backend), patience=PATIENCE)

    def reach(self, *, key: str | None = None, deadline: Deadline = NEVER) -> QuantumSystem:
        return QuantumSystem(self.access(key=key), patience=PATIENCE, deadline=deadline)

    def lose_answer_to_task(self) -> None:
        self.emulator.inject(Fault(method="POST", path="/system/v1/jobs", drop=Drop.AFTER))

    def submit(self, provider: QuantumSystem, *tags: str, cost: int | None = None) -> str:
        return provider.submit("sampler", self.parameters, session_id=None, tags=tags, cost=cost)

    def access(
        self, backend: str = EmulatedService.backend, key: str | None = None, secret: str = ""
    ) -> SystemAccess:
        account = self.emulator.accounts[0]
        return SystemAccess(
            type="ibm-quantum-system",
            backend=backend,
            endpoint=f"{self.emulator.url}/system",
            iam_endpoint=self.emulator.url,
            instance=account.crn,
            api_key=Secret(key or account.api_key),
            storage=Storage(
                endpoint=f"{self.emulator.url}/s3",
                bucket=account.storage.bucket,
                region="us-east-1",
                access_key_id=account.storage.access_key_id,
                secret=Secret(secret or account.storage.secret),
            ),
        )


@pytest.fixture
def service(emulator: Emulator, bell: str) -> IbmSystem:
    return IbmSystem(emulator, bell)


class TestQpu(QpuConformance):
    pass


class TestTasks(TaskConformance):
    pass


class TestGates(GateConformance):
    pass


class TestNetwork(NetworkConformance):
    pass


def objects(service: IbmSystem) -> list[str]:
    """List the requests that wrote, or deleted, objects."""
    return [
        f"{request.method} {request.path.rpartition('/')[2].partition('_')[0]}"
        for request in service.emulator.requests()
        if request.path.startswith("/s3/") and request.method in {"PUT", "DELETE"}
    ]


def test_the_lanes_are_its_slots_and_its_tasks_are_counted(service: IbmSystem) -> None:
    service.pause("They wait.")
    provider, other = service.connect("ibm_fez"), service.connect("ibm_torino")
    assert provider.slots() == 5
    for number in range(2):
        service.submit(provider, f"task:{number}")
    assert provider.status().queue_length == 2
    assert other.status().queue_length == 0
    assert {name: status.queue_length for name, status in other.statuses().items()} == {
        "ibm_fez": 2,
        "ibm_torino": 0,
    }


def test_any_tag_is_found_again(service: IbmSystem) -> None:
    provider = service.connect(service.backend)
    service.pause("They wait.")
    tags = ("slurm-job:lab/7", "a b", "50%*", "\u00e9t\u00e9?", "..")
    task_id = service.submit(provider, *tags)
    assert provider.task(task_id).tags == tags
    for tag in tags:
        assert provider.pending_tasks(tag) == [task_id]
    assert provider.pending_tasks("50") == []


def test_tags_that_do_not_fit_are_refused(service: IbmSystem) -> None:
    with pytest.raises(RefusedError, match="tags are too long"):
        service.submit(service.connect(service.backend), "a" * 1000)
    assert service.emulator.tasks() == []


def test_a_program_that_it_does_not_have_is_refused(service: IbmSystem) -> None:
    with pytest.raises(RefusedError, match="runs no 'executor', only sampler and estimator"):
        service.connect(service.backend).submit("executor", b"{}", session_id=None, tags=())


def test_a_task_may_take_as_long_as_its_submitter_says(service: IbmSystem) -> None:
    provider = service.connect(service.backend)
    service.pause("They wait.")
    service.submit(provider, "task:1", cost=42)
    service.submit(provider, "task:2")
    assert [task.cost for task in service.emulator.tasks()] == [42, 10_800]


def test_what_a_task_used_is_told(service: IbmSystem) -> None:
    provider = service.connect(service.backend)
    task_id = service.submit(provider, "task:1")
    ended(provider, task_id)
    quantum = provider.times(task_id).quantum
    assert quantum is not None
    assert quantum > 0
    (usage,) = provider.tasks_of("task:1")
    assert usage.seconds == quantum
    assert usage.created_at is not None
    assert usage.ended_at is not None
    assert usage.created_at < usage.ended_at


def test_a_submission_waits_for_a_lane(service: IbmSystem) -> None:
    provider = service.connect(service.backend)
    tasks = [service.submit(provider, "task") for _ in range(5)]
    with pytest.raises(UnavailableError, match="maximum number of execution lanes"):
        service.reach(deadline=Deadline.after(1)).submit(
            "sampler", service.parameters, session_id=None, tags=("late",)
        )
    ended(provider, tasks[0])
    provider.delete_task(tasks[0])
    assert provider.task(service.submit(provider, "task")).tags == ("task",)


def test_a_task_that_is_deleted_leaves_no_data(service: IbmSystem) -> None:
    provider = service.connect(service.backend)
    task_id = service.submit(provider, "task:1")
    ended(provider, task_id)
    provider.delete_task(task_id)
    assert sorted(objects(service)) == [
        "DELETE input",
        "DELETE logs",
        "DELETE results",
        "PUT input",
        "PUT logs",
        "PUT results",
    ]
    assert service.emulator.tasks() == []


def test_a_submission_whose_fate_is_not_known_is_not_said_to_have_failed(service: IbmSystem) -> None:
    service.emulator.inject(Fault(method="POST", path="/system/v1/jobs", drop=Drop.AFTER))
    service.emulator.inject(Fault(method="GET", path="/system/v1/jobs/*", times=None, status=503))
    with pytest.raises(AnswerLostError):
        service.submit(service.reach(deadline=Deadline.after(2)), "task:1")
    service.emulator.clear_faults()
    assert len(service.emulator.tasks()) == 1


def test_a_submission_that_did_not_arrive_is_sent_again(service: IbmSystem) -> None:
    service.emulator.inject(Fault(method="POST", path="/system/v1/jobs", drop=Drop.BEFORE))
    task_id = service.submit(service.connect(service.backend), "task:1")
    assert [task.id for task in service.emulator.tasks()] == [task_id]


def test_a_submission_that_is_refused_leaves_no_data(service: IbmSystem) -> None:
    with pytest.raises(NotFoundError, match="Backend ibm_nowhere not found"):
        service.submit(service.connect("ibm_nowhere"), "task:1")
    assert objects(service) == ["PUT input", "DELETE input"]


def test_a_task_of_another_program_is_read_too(service: IbmSystem, bell: str) -> None:
    """qrmi's tasks have no tags; a result in another bucket is not ours to read."""
    provider = service.connect(service.backend)
    api = SystemApi(service.emulator)
    task_id = api.submit(bell)
    task = ended(provider, task_id)
    assert (task.status, task.tags) == (TaskStatus.COMPLETED, ())
    assert b"".join(provider.result(task_id)) == api.object(f"results_{task_id}.json").content
    elsewhere = api.request("elsewhere")
    for place in elsewhere["storage"].values():
        place["presigned_url"] = place["presigned_url"].replace("/premium/", "/other/")
    api.send("POST", "/jobs", json=elsewhere).raise_for_status()
    assert ended(provider, "elsewhere").status is TaskStatus.FAILED
    with pytest.raises(NotFoundError, match="in another storage"):
        provider.logs("elsewhere")


def test_a_result_is_asked_for_when_there_is_one(service: IbmSystem) -> None:
    provider = service.connect(service.backend)
    service.pause("They wait.")
    task_id = service.submit(provider, "task:1")
    with pytest.raises(UnavailableError, match="has no result: it is running"):
        list(provider.result(task_id))
    assert provider.logs(task_id) == ""
    provider.cancel_task(task_id)
    with pytest.raises(RefusedError, match="has no result: it is cancelled"):
        list(provider.result(task_id))


def test_a_wrong_key_of_the_storage_is_refused_and_no_signature_is_shown(
    service: IbmSystem, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    provider = QuantumSystem(service.access(secret="not-the-secret"), patience=PATIENCE)
    with pytest.raises(RefusedError, match=r"The object storage refuses PUT /premium/\S+ \(403\)") as caught:
        service.submit(provider, "task:1")
    assert "clocks agree" in caught.value.admin_advice
    service.emulator.inject(Fault(path="/s3/*", status=503))
    provider = service.connect(service.backend)
    ended(provider, service.submit(provider, "task:2"))
    said = [record.getMessage() for record in caplog.records if record.name.startswith("qpu_slurm.")]
    assert any("is sent again" in line for line in said)
    for text in (str(caught.value), *said):
        assert "X-Amz" not in text
        assert "secret" not in text


def test_the_service_may_reach_the_storage_by_another_name(service: IbmSystem) -> None:
    access = service.access()
    there = service.emulator.url.replace("127.0.0.1", "localhost")
    storage = Storage(
        **{name: getattr(access.storage, name) for name in Storage.__struct_fields__}
        | {"service_endpoint": f"{there}/s3/"}
    )
    provider = QuantumSystem(
        SystemAccess(
            **{name: getattr(access, name) for name in SystemAccess.__struct_fields__} | {"storage": storage}
        ),
        patience=PATIENCE,
    )
    task_id = service.submit(provider, "task:1")
    assert ended(provider, task_id).status is TaskStatus.COMPLETED
    assert b"".join(provider.result(task_id))
    document = SystemApi(service.emulator).task(task_id)
    places = [urlsplit(place["presigned_url"]).hostname for place in document["storage"].values()]
    assert places == ["localhost"] * 3


def test_one_account_shares_a_token_and_connections(service: IbmSystem) -> None:
    first = service.connect("ibm_fez")
    first.status()
    QuantumSystem(service.access("ibm_torino"), patience=PATIENCE, beside=first).status()
    tokens = [request for request in service.emulator.requests() if request.path == "/identity/token"]
    assert len(tokens) == 1
