# SPDX-License-Identifier: Apache-2.0
"""A QPU behind an IQM Server on a real Slurm: the example's three programs, and no token in any job."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from qpu_slurm_devkit.lab import Lab
from tests.clients.releases import IQM
from tests.cluster.conftest import CHECKOUT, OUTAGE, check_nothing_left
from tests.cluster.seen import forget_how_qpus_were
from tests.cluster.test_gateway import AS_ROOT, LOOK_AROUND, TAKES_ROOT, holders_of, wait_until_ready

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(900)  # the first one makes iqm-client's environment

WAITS = "#!/bin/sh\n#SBATCH --qpu=garnet\necho ready\ntask_runner garnet wait_input.json wait_output.json\n"
"""A job that submits a task and waits for it."""

ANSWERS = """
import os, requests
url, name = os.environ["IQM_SERVER_URL"] + "/api/v1", os.environ["IQM_QUANTUM_COMPUTER"]
headers = {"Authorization": "Bearer " + os.environ["IQM_TOKEN"]}
paths = ["/quantum-computers", f"/quantum-computers/{name}", f"/quantum-computers/{name}/health"]
calibration = f"/calibration-sets/{name}/default"
paths += [calibration + what for what in ("", "/dynamic-quantum-architecture", "/metrics")]
for path in paths:
    answer = requests.get(url + path, headers=headers, timeout=60)
    answer.raise_for_status()
    print(answer.headers, answer.text)
print(os.environ)
"""
"""A program that asks for all that there is."""

INPUT = (
    '{"iqmjson": {"circuits": [{"name": "c", "instructions": [{"name": "measure", "locus": ["QB1"], '
    '"args": {"key": "m"}}]}], "shots": 10}}'
)


@pytest.fixture(scope="module")
def shared_lab_of_iqm() -> Iterator[Lab]:
    with Lab(CHECKOUT, qpus=("ibm_fez",), iqm=("garnet",), tables=OUTAGE) as lab:
        lab.put(CHECKOUT / "contrib" / "iqm")
        yield lab


@pytest.fixture
def lab_of_iqm(shared_lab_of_iqm: Lab) -> Iterator[Lab]:
    """Return a lab with a QPU of IQM's; nothing is left at the server after a test."""
    shared_lab_of_iqm.emulator.reset()
    yield shared_lab_of_iqm
    check_nothing_left(shared_lab_of_iqm)
    shared_lab_of_iqm.emulator.wait_for(lambda emulator: emulator.tasks() == [], seconds=60)


def test_heterogeneous_job(lab_of_iqm: Lab) -> None:
    """Its first and its last program run in iqm-client's environment, its second is ours."""
    release = IQM[-1]
    release.make()
    venv = release.python.parents[1]

    job = lab_of_iqm.submit(["job_split_hetjob.sh"], env={"IQM_VENV": str(venv)})

    assert lab_of_iqm.wait(job) == "COMPLETED", lab_of_iqm.cluster.output(job)
    output = lab_of_iqm.cluster.output(job)
    found = re.search(r"circuit 0: 10000 shots, most often \{'(\d+)': (\d+), '(\d+)': (\d+)\}", output)
    assert found, output
    first, many, second, few = found.groups()
    assert {first, second} == {"11111", "00000"}
    assert 1.5 < int(many) / int(few) < 4.5
    assert lab_of_iqm.emulator.sessions() == []


def test_no_token_of_the_server_is_in_reach_of_a_job(lab_of_iqm: Lab) -> None:
    assert AS_ROOT, TAKES_ROOT
    (lab_of_iqm.cluster.home() / "everything.py").write_text(ANSWERS)
    job = lab_of_iqm.submit(LOOK_AROUND.replace("ibm_fez", "garnet"))

    assert lab_of_iqm.wait(job) == "COMPLETED", lab_of_iqm.cluster.output(job)
    for name in ("seen_script", "seen_step", "seen_answers"):
        seen = (lab_of_iqm.cluster.home() / name).read_text(errors="replace")
        assert "qpu-slurm-job-key-" in seen, name
        assert lab_of_iqm.account.api_key not in seen
    assert holders_of(lab_of_iqm.account.api_key, lab_of_iqm.cluster.directory) == {"ibm.key"}
    for log in (lab_of_iqm.gateway_log, lab_of_iqm.hook_log):
        assert "qpu-slurm-job-key-" not in log


def test_a_job_that_is_cancelled_leaves_no_task(lab_of_iqm: Lab) -> None:
    (lab_of_iqm.cluster.home() / "wait_input.json").write_text(INPUT)
    job = lab_of_iqm.submit(WAITS.replace("echo ready", "echo ready; sleep 3"))
    wait_until_ready(lab_of_iqm, job)
    lab_of_iqm.emulator.set_backend("garnet", "paused")
    lab_of_iqm.emulator.wait_for(lambda emulator: emulator.tasks(), seconds=120)

    assert lab_of_iqm.run(["scancel", str(job)]).returncode == 0

    assert lab_of_iqm.wait(job) == "CANCELLED"
    lab_of_iqm.emulator.wait_for(lambda emulator: emulator.tasks() == [], seconds=60)
    lab_of_iqm.emulator.set_backend("garnet")


def test_a_gateway_that_is_killed_costs_no_job_its_task(lab_of_iqm: Lab) -> None:
    assert lab_of_iqm.gateway is not None
    (lab_of_iqm.cluster.home() / "wait_input.json").write_text(INPUT)
    (lab_of_iqm.cluster.home() / "wait_output.json").unlink(missing_ok=True)
    job = lab_of_iqm.submit(WAITS.replace("echo ready", "echo ready; sleep 3"))
    wait_until_ready(lab_of_iqm, job)
    lab_of_iqm.emulator.set_backend("garnet", "paused")
    lab_of_iqm.emulator.wait_for(lambda emulator: emulator.tasks(), seconds=120)

    lab_of_iqm.gateway.kill()
    lab_of_iqm.gateway.start()
    lab_of_iqm.emulator.set_backend("garnet")

    assert lab_of_iqm.wait(job) == "COMPLETED", lab_of_iqm.cluster.output(job)
    assert '"measurement_counts"' in (lab_of_iqm.cluster.home() / "wait_output.json").read_text()


def test_one_job_has_a_qpu_of_iqm_and_one_of_ibm_or_neither(lab_of_iqm: Lab) -> None:
    lab_of_iqm.emulator.set_backend("garnet", "offline")
    forget_how_qpus_were(lab_of_iqm)
    refused = lab_of_iqm.run(["srun", "--qpu=ibm_fez,garnet", "true"])
    assert refused.returncode != 0
    assert "garnet is not available now" in refused.stderr
    lab_of_iqm.emulator.set_backend("garnet")
    forget_how_qpus_were(lab_of_iqm)

    job = lab_of_iqm.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez,garnet\nenv | grep -E 'ACQUISITION_TOKEN|^IQM_QUANTUM' | sort\n"
    )

    assert lab_of_iqm.wait(job) == "COMPLETED", lab_of_iqm.cluster.output(job)
    computer, garnet, fez = lab_of_iqm.cluster.output(job).split()
    assert computer == "IQM_QUANTUM_COMPUTER=garnet"
    assert garnet.startswith("garnet_QRMI_JOB_ACQUISITION_TOKEN=gate-")
    (session,) = lab_of_iqm.emulator.sessions()
    assert fez.endswith(f"={session.id}")
    timeline = lab_of_iqm.command("timeline", str(job), config=lab_of_iqm.gateway_config).stdout
    assert "ibm_fez" in timeline
    assert "garnet" in timeline
