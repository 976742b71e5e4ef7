# SPDX-License-Identifier: Apache-2.0
"""Programs of users in a job, with the clients that they have installed, by the job's variables alone.

`CLIENTS=ends` runs the oldest and the newest release of each client, and no other.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from qpu_slurm.job import variables
from qpu_slurm.job.variables import JobQpu
from qpu_slurm.system.secret import Secret
from tests.clients.expected import CASES, Outcome, expected
from tests.clients.releases import ENDS, QRMI, RELEASES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpu_slurm_devkit.emulator import Emulator
    from tests.clients.expected import Program
    from tests.clients.releases import Release
    from tests.integration.gateway_site import Site

HERE = Path(__file__).parent

WANTED = ENDS if os.environ.get("CLIENTS") == "ends" else frozenset(RELEASES)

SECONDS = 200
"""What one program may take on a busy machine."""

pytestmark = pytest.mark.timeout(900)  # the first test of a release makes its environment

SAYS = {
    Outcome.IAM: "Unable to retrieve instances",
    Outcome.TYPE: "list index out of range|KeyError: 'ibm-quantum-compute-service'",
}
"""What a program that fails says."""


@pytest.fixture
def direct(emulator: Emulator, site: Site) -> JobQpu:
    """Return the QPU of a job without a gateway, with the public addresses of IBM's service."""
    account = emulator.accounts[0]
    return JobQpu(
        name="ibm_fez",
        backend="ibm_fez",
        endpoint="https://quantum.cloud.ibm.com/api/v1",
        iam_endpoint="https://iam.cloud.ibm.com",
        instance=account.crn,
        api_key=Secret(account.api_key),
        session_id=site.acquire().session_id,
        hold="job",
    )


def run(release: Release, program: str, environ: Mapping[str, str], directory: Path) -> tuple[int, str, str]:
    release.make()
    assert release.installed("qiskit") == release.qiskit
    done = subprocess.run(
        [release.python, "-W", "ignore", HERE / "programs" / f"{program}.py"],
        env={**environ, "TMPDIR": str(directory)},
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    return done.returncode, done.stdout.strip(), done.stderr


def outcome(emulator: Emulator, session_id: str | None) -> Outcome:
    """Tell where the program's tasks ran."""
    sessions = {task.session_id for task in emulator.tasks()}
    if not sessions:
        return Outcome.NO_TASK
    if sessions == {None}:
        return Outcome.NO_SESSION
    return Outcome.JOB if sessions == {session_id} else Outcome.OWN


@pytest.mark.parametrize(
    ("release", "program", "route"),
    [
        pytest.param(*case, id=f"{case[0]} {case[1].name} {case[2]}".replace(" ", "-"))
        for case in CASES
        if case[0] in WANTED
    ],
)
def test_a_users_program_runs_where_the_document_says(  # noqa: PLR0917 - pytest names them
    release: Release,
    program: Program,
    route: str,
    site: Site,
    emulator: Emulator,
    direct: JobQpu,
    tmp_path: Path,
) -> None:
    if route == "gateway":
        with site.job(site.acquire()) as job:
            environ, session_id = job.environ, job.lease.session_id
            returned, printed, said = run(release, program.name, environ, tmp_path)
    else:
        environ, session_id = _direct_environ(program, direct, emulator), direct.session_id
        returned, printed, said = run(release, program.name, environ, tmp_path)

    wanted = expected(release, program, route)
    if wanted in SAYS:
        assert returned, printed
        assert any(words in said for words in SAYS[wanted].split("|")), said
        assert emulator.tasks() == []
    else:
        assert (returned, printed) == (0, program.prints), said
        assert outcome(emulator, session_id) is wanted


@pytest.mark.parametrize("release", [QRMI[0]], ids=str)
def test_an_older_qrmi_runs_where_the_admin_names_the_type_as_it_does(
    release: Release, site: Site, emulator: Emulator, tmp_path: Path
) -> None:
    with site.job(site.acquire()) as job:
        older = job.environ | dict.fromkeys(
            ("QRMI_JOB_QPU_TYPES", "SLURM_JOB_QPU_TYPES"), "qiskit-runtime-service"
        )
        for program in ("qrmi_primitives", "qrmi_task_runner"):
            (case,) = [
                case for case in CASES if (case[0], case[1].name, case[2]) == (release, program, "gateway")
            ]
            returned, printed, said = run(release, case[1].name, older, tmp_path)
            assert (returned, printed) == (0, case[1].prints), said
        assert outcome(emulator, job.lease.session_id) is Outcome.JOB


def _direct_environ(program: Program, qpu: JobQpu, emulator: Emulator) -> dict[str, str]:
    """Return the variables of a job without a gateway.

    A plain program of IBM's client gets those of the public service, since older releases take no other IAM.
    The others take the emulator's address.
    """
    job = {"PATH": os.defpath, "SLURM_JOB_ID": "7"}
    if not program.name.startswith("runtime_"):
        there = structs.replace(qpu, endpoint=f"{emulator.url}/api/v1", iam_endpoint=emulator.url)
        return job | variables.to_environ([there])
    public = {"PYTHONPATH": str(HERE / "public"), "QPU_SLURM_TEST_EMULATOR": emulator.url}
    return job | public | variables.to_environ([qpu])
