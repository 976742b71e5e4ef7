# SPDX-License-Identifier: Apache-2.0
"""A QPU behind the IBM Quantum System API on a real Slurm: the same jobs, and no key in any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qpu_slurm_devkit.lab import Lab
from tests.cluster.conftest import CHECKOUT, OUTAGE, PROGRAMS, check_nothing_left
from tests.cluster.seen import forget_how_qpus_were
from tests.cluster.test_gateway import AS_ROOT, LOOK_AROUND, TAKES_ROOT, holders_of, wait_until_ready
from tests.cluster.test_main_job import check_distribution

if TYPE_CHECKING:
    from collections.abc import Iterator

WAITS = (
    "#!/bin/sh\n#SBATCH --qpu=ibm_fez\necho ready\ntask_runner ibm_fez sampler_input_ibm_fez.json out.json\n"
)
"""A job that submits a task and waits for it."""


@pytest.fixture(scope="module")
def shared_premises() -> Iterator[Lab]:
    with Lab(CHECKOUT, on_premises=("ibm_fez",), tables=OUTAGE) as lab:
        lab.put(CHECKOUT / "contrib" / "seed")
        for user in lab.cluster.users:
            lab.put(PROGRAMS, user)
        yield lab


@pytest.fixture
def premises(shared_premises: Lab) -> Iterator[Lab]:
    """Return a lab whose `ibm_fez` is on the premises; nothing is left there after a test."""
    shared_premises.emulator.reset()
    yield shared_premises
    check_nothing_left(shared_premises)
    shared_premises.emulator.wait_for(lambda emulator: emulator.tasks() == [], seconds=60)


def check_no_object_is_left(lab: Lab) -> None:
    """Fail unless every object that was written is deleted."""
    written = {request.path for request in lab.emulator.requests() if request.method == "PUT"}
    written = {path for path in written if path.startswith("/s3/")}

    def gone() -> bool:
        requests = lab.emulator.requests()
        return written <= {request.path for request in requests if request.method == "DELETE"}

    assert written
    lab.emulator.wait_for(lambda _: gone(), seconds=60)


def test_heterogeneous_job(premises: Lab) -> None:
    job = premises.submit(["job_split_hetjob.sh"])

    assert premises.wait(job) == "COMPLETED", premises.cluster.output(job)
    check_distribution(premises.cluster.output(job))
    assert premises.emulator.sessions() == []
    check_no_object_is_left(premises)


def test_no_key_of_the_service_or_of_its_storage_is_in_reach_of_a_job(premises: Lab) -> None:
    assert AS_ROOT, TAKES_ROOT
    job = premises.submit(LOOK_AROUND)

    assert premises.wait(job) == "COMPLETED", premises.cluster.output(job)
    home, storage = premises.cluster.home(), premises.account.storage
    for name in ("seen_script", "seen_step", "seen_answers"):
        seen = (home / name).read_text(errors="replace")
        assert "qpu-slurm-job-key-" in seen, name
        assert storage.secret not in seen
        assert premises.account.api_key not in seen
        assert "X-Amz-Signature=" not in seen
    assert holders_of(premises.account.api_key, premises.cluster.directory) == {"ibm.key"}
    assert holders_of(storage.secret, premises.cluster.directory) == {"s3.key"}
    for log in (premises.gateway_log, premises.hook_log):
        assert "qpu-slurm-job-key-" not in log
        assert "X-Amz-Signature=" not in log.replace("X-Amz-Signature=***", "")


def test_a_job_that_is_cancelled_leaves_no_task(premises: Lab) -> None:
    first = premises.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\npython map_optimize.py\n")
    assert premises.wait(first) == "COMPLETED", premises.cluster.output(first)
    job = premises.submit(WAITS.replace("echo ready", "echo ready; sleep 3"))
    wait_until_ready(premises, job)
    premises.emulator.set_backend("ibm_fez", "paused", "Calibrating.")
    premises.emulator.wait_for(lambda emulator: emulator.tasks(), seconds=120)

    assert premises.run(["scancel", str(job)]).returncode == 0

    assert premises.wait(job) == "CANCELLED"
    premises.emulator.wait_for(lambda emulator: emulator.tasks() == [], seconds=60)
    premises.emulator.set_backend("ibm_fez")


def test_a_gateway_that_is_killed_costs_no_job_its_task(premises: Lab) -> None:
    assert premises.gateway is not None
    first = premises.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\npython map_optimize.py\n")
    assert premises.wait(first) == "COMPLETED", premises.cluster.output(first)
    (premises.cluster.home() / "out.json").unlink(missing_ok=True)
    job = premises.submit(WAITS.replace("echo ready", "echo ready; sleep 3"))
    wait_until_ready(premises, job)
    premises.emulator.set_backend("ibm_fez", "paused", "Calibrating.")
    premises.emulator.wait_for(lambda emulator: emulator.tasks(), seconds=120)

    premises.gateway.kill()
    premises.gateway.start()
    premises.emulator.set_backend("ibm_fez")

    assert premises.wait(job) == "COMPLETED", premises.cluster.output(job)
    assert (premises.cluster.home() / "out.json").exists()


def test_one_job_has_a_qpu_on_the_premises_and_one_in_the_cloud_or_neither(premises: Lab) -> None:
    premises.emulator.set_backend("ibm_torino", "offline", "Gone.")
    forget_how_qpus_were(premises)
    refused = premises.run(["srun", "--qpu=ibm_fez,ibm_torino", "true"])
    assert refused.returncode != 0
    assert "ibm_torino is not available now" in refused.stderr
    premises.emulator.set_backend("ibm_torino")
    forget_how_qpus_were(premises)

    job = premises.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez,ibm_torino\nenv | grep ACQUISITION_TOKEN | sort\n"
    )

    assert premises.wait(job) == "COMPLETED", premises.cluster.output(job)
    fez, torino = premises.cluster.output(job).split()
    assert fez.startswith("ibm_fez_QRMI_JOB_ACQUISITION_TOKEN=gate-")
    (session,) = premises.emulator.sessions()
    assert torino.endswith(f"={session.id}")
    timeline = premises.command("timeline", str(job), config=premises.gateway_config).stdout
    assert "ibm_fez" in timeline
    assert "ibm_torino" in timeline
