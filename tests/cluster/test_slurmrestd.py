# SPDX-License-Identifier: Apache-2.0
"""Jobs that are submitted through slurmrestd, where no plugin runs and no #SBATCH line is read."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import time
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.cluster.conftest import CHECKOUT
from tests.cluster.matrix.stage import INPUT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qpu_slurm_devkit.cluster import Cluster
    from qpu_slurm_devkit.lab import Lab

SECONDS = 60

OLD = (23,)
"""Slurm 22.05 does not know `spank_environment`, and says so: QPUs need sbatch there."""

UNKNOWN_KEY = 'Unknown key "spank_environment"'

PATH = {"PATH": "/usr/bin:/bin"}

SAY = "#!/bin/sh\necho holds ${ibm_fez_QRMI_JOB_ACQUISITION_TOKEN:-nothing}\n"
SAY_IN_STEP = SAY + "srun sh -c 'echo step holds $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN'\n"


class Rest:
    """A slurmrestd on a socket of its user's, which says who asks."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._socket = cluster.home() / "slurmrestd.socket"
        program = shutil.which("slurmrestd", path="/usr/local/sbin:/usr/sbin:/sbin")
        assert program is not None, "slurmrestd is not installed: tools/setup does it"
        # Without slurmdbd, the part of it that speaks with that cannot be loaded.
        part = "openapi/v0.0.38" if cluster.version < OLD else "openapi/slurmctld"
        argv = [program, "-s", part, "-a", "rest_auth/local", f"unix:{self._socket}"]
        self._process = cluster.popen(argv)
        self._submit = ""

    def __enter__(self) -> Self:
        deadline = time.monotonic() + SECONDS
        while not self._socket.exists():
            assert self._process.poll() is None, self._process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        paths = self._ask("GET", "/openapi/v3")["paths"]
        self._submit = max(path for path in paths if re.search("/v[0-9.]+/job/submit$", path))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._socket.unlink()

    def submit(self, script: str, environ: Mapping[str, str], *spank: str) -> dict[str, Any]:
        """Submit a job by the newest version of the API; return the answer."""
        job = {
            "name": "rest",
            "partition": "normal",
            "current_working_directory": str(self._cluster.home()),
            "standard_output": str(self._cluster.home() / "rest-%j.out"),
            "environment": dict(environ)
            if self._cluster.version < OLD
            else [f"{name}={value}" for name, value in environ.items()],
            **({"spank_environment": spank} if spank else {}),
        }
        return self.post({"script": script, "job": job})

    def post(self, request: object) -> dict[str, Any]:
        """Send a request to submit a job; return the answer."""
        answer: dict[str, Any] = self._ask("POST", self._submit, request)
        return answer

    def _ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        connection = http.client.HTTPConnection("localhost", timeout=SECONDS)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(SECONDS)
        connection.sock.connect(str(self._socket))
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@pytest.fixture
def rest(lab: Lab) -> Iterator[Rest]:
    with Rest(lab.cluster) as rest:
        yield rest


def test_a_job_that_asks_for_no_qpu_runs(lab: Lab, rest: Rest) -> None:
    answer = rest.submit(SAY, PATH)
    assert lab.wait(answer["job_id"]) == "COMPLETED"
    assert lab.cluster.output(answer["job_id"]) == "holds nothing\n"


def test_lines_that_only_sbatch_reads_are_not_lost_silently(lab: Lab, rest: Rest) -> None:
    answer = rest.submit(SAY.replace("\n", "\n#SBATCH --time=5 --qpu=ibm_fez\n", 1), PATH)
    assert lab.wait(answer["job_id"]) == "FAILED"
    said = lab.cluster.output(answer["job_id"])
    assert said.startswith("qpu_slurm: The script's #SBATCH --qpu=ibm_fez was not read")
    assert '"spank_environment": ["QPU_SLURM_QPU=ibm_fez"]' in said
    assert lab.emulator.sessions() == []


@pytest.mark.credentials("gateway", "user")
def test_a_job_that_asks_for_a_qpu_has_it(lab: Lab, rest: Rest) -> None:
    environ, spank = PATH, ["QPU_SLURM_QPU=ibm_fez"]
    if lab.credentials == "user":
        # One for the controller's hooks, one for the job.
        spank.append(f"QPU_SLURM_API_KEY={lab.account.api_key}")
        environ = {**PATH, "QISKIT_IBM_TOKEN": lab.account.api_key}
    answer = rest.submit(SAY_IN_STEP, environ, *spank)
    if lab.cluster.version < OLD:
        assert UNKNOWN_KEY in str(answer["errors"])
        return
    assert lab.wait(answer["job_id"]) == "COMPLETED"
    (session,) = lab.emulator.sessions()
    assert lab.cluster.output(answer["job_id"]) == f"holds {session.id}\nstep holds {session.id}\n"


def test_the_request_of_the_documentation_works(lab: Lab, rest: Rest) -> None:
    text = (CHECKOUT / "docs" / "slurmrestd.md").read_text()
    request = json.loads(text.split("```json\n")[1].split("```")[0])
    home = str(lab.cluster.home())
    request["job"] |= {"current_working_directory": home, "standard_output": f"{home}/rest-%j.out"}
    request["job"]["environment"] = [f"PATH={lab.environ['PATH']}"]
    (lab.cluster.home() / "input.json").write_text(json.dumps(INPUT))
    (lab.cluster.home() / "input.json").chmod(0o644)
    if lab.cluster.version < OLD:
        request["job"]["environment"] = {"PATH": lab.environ["PATH"]}
        request["script"] = request["job"].pop("script")
        assert UNKNOWN_KEY in str(rest.post(request)["errors"])
        return
    answer = rest.post(request)
    assert lab.wait(answer["job_id"]) == "COMPLETED", lab.cluster.output(answer["job_id"])
    assert [session.backend for session in lab.emulator.sessions()] == ["ibm_fez"]
    assert (lab.cluster.home() / "output.json").exists()


REFUSED = {
    "no such QPU": (["QPU_SLURM_QPU=ibm_nowhere"], "There is no QPU 'ibm_nowhere' here."),
    "no name": (["QPU_SLURM_QPU=$(reboot)"], "--qpu"),
}


@pytest.mark.parametrize(("spank", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_to_be_had_ends_the_job_with_the_reason(
    lab: Lab, rest: Rest, spank: list[str], says: str
) -> None:
    answer = rest.submit(SAY, PATH, *spank)
    if lab.cluster.version < OLD:
        assert UNKNOWN_KEY in str(answer["errors"])
        return
    assert lab.wait(answer["job_id"]) == "FAILED"
    output = lab.cluster.output(answer["job_id"])
    assert output.startswith("qpu_slurm: ")
    assert says in output
    assert "holds" not in output


def test_trouble_of_ours_ends_no_job_that_wants_no_qpu(lab: Lab, rest: Rest) -> None:
    hidden = lab.config.rename(lab.config.with_suffix(".hidden"))
    try:
        answer = rest.submit(SAY, PATH)
        assert lab.wait(answer["job_id"]) == "COMPLETED"
    finally:
        hidden.rename(lab.config)
    assert lab.cluster.output(answer["job_id"]) == "holds nothing\n"
