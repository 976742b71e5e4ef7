# SPDX-License-Identifier: Apache-2.0
"""A QPU behind an IQM Server, as jobs see it: qrmi, plain requests and task_runner, with the job key alone.

tests/clients runs iqm-client, which needs an environment of its own.
"""

from __future__ import annotations

import json
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
import requests

from qpu_slurm.config.budgets import Budget, Period, Scope
from qpu_slurm_devkit.emulator import Drop, Emulator, Fault
from tests.integration.gateway_site import BEHIND_IQM, Job, Site, program, run
from tests.integration.steps import TASK_RUNNER
from tests.integration.test_emulator_iqm import QRMI_PROGRAM, IqmApi, batch, bell, cz, measure, prx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 90

QPUS = BEHIND_IQM


@pytest.fixture
def site(module_site: Site) -> Iterator[Site]:
    module_site.emulator.reset()
    yield module_site
    module_site.forget()


@pytest.fixture
def job(site: Site) -> Iterator[Job]:
    with site.job(site.acquire("garnet")) as job:
        yield job


@pytest.fixture
def iqm(job: Job) -> IqmApi:
    return IqmApi(job.site.url, job.key)


def api_of(job: Job) -> IqmApi:
    return IqmApi(job.site.url, job.key)


def write_input(directory: Path, body: object, **more: object) -> Path:
    """Write an input as QRMI's task_runner takes it."""
    path = directory / "input.json"
    document = {"iqmjson": body, "job_type": "circuit", "use_timeslot": False, "tag": None}
    path.write_text(json.dumps(document | more))
    return path


def run_task(job: Job, directory: Path, *arguments: str) -> tuple[int, str, str]:
    done = run(job, TASK_RUNNER, job.lease.qpu, *arguments, cwd=directory)
    return done.returncode, done.stdout, done.stderr


def test_a_job_sees_a_job_key_in_place_of_the_token(job: Job) -> None:
    environ = job.environ
    assert job.site.account.api_key not in json.dumps(environ)
    assert environ["IQM_TOKEN"] == environ["garnet_QRMI_IQM_ISA_TOKEN"] == job.key
    assert environ["IQM_SERVER_URL"] == environ["garnet_QRMI_IQM_ISA_ENDPOINT"] == job.site.url
    assert environ["IQM_QUANTUM_COMPUTER"] == "garnet"
    assert environ["QRMI_JOB_QPU_TYPES"] == "iqm-server"
    assert "QISKIT_IBM_TOKEN" not in environ
    assert job.session_id.startswith("gate-")


def test_qrmis_unmodified_wheel_runs_a_circuit_by_environment(job: Job) -> None:
    done = program(job, QRMI_PROGRAM.replace("sys.argv[1]", repr(json.dumps(bell(shots=200)))))
    assert done.returncode == 0, done.stderr
    assert sum(json.loads(done.stdout.splitlines()[-1]).values()) == 200
    assert [task.tags for task in job.site.emulator.tasks()] == [(job.session_id,)]


def test_qrmi_finds_a_qpu_whose_name_it_reads_in_its_own_way(site: Site) -> None:
    """qrmi reads the last `_` of `iqm_small` as `:`, and the server calls the QPU `spark`."""
    with site.job(site.acquire("iqm_small")) as job:
        done = program(
            job,
            """
            import json
            from qrmi import QuantumResource, ResourceType
            qpu = QuantumResource("iqm_small", ResourceType.IQMServer)
            print(len(json.loads(qpu.target().value)["dynamic_quantum_architecture"]["qubits"]))
            """,
        )
        assert (done.returncode, done.stdout.strip()) == (0, "5"), done.stderr
        assert job.environ["IQM_QUANTUM_COMPUTER"] == "spark"


def test_upstreams_task_runner_runs_in_the_jobs_gate(job: Job, tmp_path: Path) -> None:
    path = write_input(tmp_path, bell(shots=100), tag="mine")
    command = [sys.executable, "-m", "qrmi.tools.task_runner.main", "garnet", path, "out.json"]
    done = run(job, *command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert sum(result["measurement_counts"][0]["counts"].values()) == 100


def test_a_client_sees_its_own_qpu_alone(job: Job, iqm: IqmApi) -> None:
    (listed,) = iqm.get("/quantum-computers")["quantum_computers"]
    assert (listed["alias"], listed["proxy_path"]) == ("garnet", None)
    for path in (
        "/quantum-computers/garnet",
        "/quantum-computers/garnet/health",
        "/quantum-computers/garnet/limits",
        "/quantum-computers/garnet/queue-availability",
        "/quantum-computers/garnet/artifacts/static-quantum-architectures",
        "/calibration-sets/garnet/default",
        "/calibration-sets/garnet/default/dynamic-quantum-architecture",
        "/calibration-sets/garnet/default/metrics",
    ):
        direct = IqmApi.of(job.site.emulator).get(path)
        ours = iqm.get(path)
        if "health" not in path and path != "/quantum-computers/garnet":
            assert ours == direct, path
        other = iqm.send("GET", path.replace("garnet", "spark"))
        assert other.status_code == 404
        assert "'spark' is not this job's" in other.json()["message"]
    assert iqm.send("POST", "/jobs/spark/circuit", body=bell()).status_code == 404
    assert job.site.emulator.tasks() == []


def test_a_task_from_its_submission_to_its_end(job: Job, iqm: IqmApi) -> None:
    submitted = iqm.send("POST", "/jobs/garnet/circuit", body=bell(shots=50), tag="mine").json()
    assert submitted["tag"] == "mine"
    waited = iqm.send("GET", f"/jobs/{submitted['id']}", wait_until_terminal="true", timeout_seconds="30")
    assert (waited.json()["status"], waited.json()["tag"]) == ("completed", "mine")
    assert iqm.get(f"/jobs/{submitted['id']}/payload") == bell(shots=50)
    (counts,) = iqm.get(f"/jobs/{submitted['id']}/artifacts/measurement_counts")
    assert sum(counts["counts"].values()) == 50
    again = iqm.send("POST", f"/jobs/{submitted['id']}/cancel")
    assert (again.status_code, again.json()["error_code"]) == (403, "illegal_job_status")
    assert iqm.send("DELETE", f"/jobs/{submitted['id']}").status_code == 204
    assert job.site.emulator.tasks() == []
    # What it used is in the journal.
    job.site.release(job.lease)
    (use,) = job.site.journal.history.tasks(job.session_id)
    assert (use.task_id, use.status) == (submitted["id"], "completed")
    assert use.seconds > 0


def test_jobs_do_not_reach_each_others_tasks(site: Site, iqm: IqmApi) -> None:
    task_id = iqm.submit(bell())
    foreign = IqmApi.of(site.emulator).submit(bell())
    with site.job(site.acquire("garnet")) as other:
        theirs = api_of(other)
        for api, hidden in ((theirs, task_id), (iqm, foreign), (iqm, str(uuid.uuid4()))):
            for method, path in (
                ("GET", ""),
                ("DELETE", ""),
                ("POST", "/cancel"),
                ("GET", "/payload"),
                ("GET", "/artifacts/measurements"),
            ):
                answer = api.send(method, f"/jobs/{hidden}{path}")
                assert (answer.status_code, answer.json()["error_code"]) == (404, "not_found"), path
    assert {task.id for task in site.emulator.tasks()} == {task_id, foreign}


def test_a_key_is_good_for_its_own_lease_and_while_that_is_held(site: Site, job: Job, iqm: IqmApi) -> None:
    with site.job(site.acquire("ibm_fez")) as other:
        answer = api_of(other).send("GET", "/quantum-computers")
        assert (answer.status_code, answer.json()["error_code"]) == (401, "unauthorized")
        assert "no QPU of IQM's" in answer.json()["message"]
    site.release(job.lease)
    ended = iqm.send("GET", f"/jobs/{uuid.uuid4()}")
    assert (ended.status_code, ended.json()["error_code"]) == (401, "unauthorized")


def test_the_end_of_the_job_ends_its_tasks_and_deletes_them(site: Site, job: Job, iqm: IqmApi) -> None:
    with site.job(site.acquire("garnet")) as other:
        kept = api_of(other).submit(bell())
        iqm.ended(iqm.submit(bell()))
        site.emulator.set_backend("garnet", "paused")
        waiting = iqm.submit(bell())

        site.release(job.lease)

        site.emulator.wait_for(lambda emulator: [task.id for task in emulator.tasks()] == [kept])
        site.emulator.wait_for(lambda _: len(site.journal.history.tasks(job.session_id)) == 2)
        uses = site.journal.history.tasks(job.session_id)
        assert [use.status for use in uses] == ["completed", "cancelled"]
        assert uses[1].task_id == waiting
        # The gate's own line goes last; other tests' gates may be there still.
        ledger = site.directory / "iqm" / "garnet"
        site.emulator.wait_for(lambda _: not (ledger / f"{job.session_id}.jsonl").exists())
        assert (ledger / f"{other.session_id}.jsonl").exists()


def test_a_batch_that_is_under_way_as_the_job_ends_is_cancelled_at_once(
    site: Site, job: Job, iqm: IqmApi
) -> None:
    site.emulator.set_backend("garnet", "paused")
    site.emulator.inject(Fault(method="POST", path="/jobs/garnet/circuit", delay=4))
    with ThreadPoolExecutor(1) as pool:
        submission = pool.submit(iqm.send, "POST", "/jobs/garnet/circuit", body=bell())
        site.emulator.wait_for(lambda emulator: emulator.faults() == [])
        site.release(job.lease)
        answer = submission.result()

    assert (answer.status_code, answer.json()["error_code"]) == (403, "forbidden")
    assert [task.status for task in site.emulator.tasks()] in ([], ["Cancelled"])


def test_a_budget_ends_a_gate_while_its_job_runs() -> None:
    with Emulator(task_seconds=1.5) as emulator, Site(emulator, qpus=BEHIND_IQM) as site:
        budget = Budget(scope=Scope(), period=Period.PROJECT, ends=date(2999, 1, 1), limit=1)
        site.journal.budgets.put(budget, by=0, reason="a test")
        with site.start().job(site.acquire("garnet")) as job:
            iqm = api_of(job)
            iqm.ended(iqm.submit(bell()))  # it overspends the budget
            answers = [iqm.send("POST", "/jobs/garnet/circuit", body=bell()) for _ in range(2)]
        for answer in answers:
            assert answer.status_code == 403, answer.text
            assert "is used up: " in answer.json()["message"]


def test_the_admin_says_who_waits_for_timeslots(site: Site) -> None:
    with site.job(site.acquire("iqm_small")) as never:
        refused = api_of(never).send("POST", "/jobs/spark/circuit", body=bell(), use_timeslot="true")
        assert refused.status_code == 403
        assert "use_timeslot" in refused.json()["message"]
        api_of(never).submit(bell(), "spark")
    with site.job(site.acquire("always")) as always:
        api_of(always).submit(bell(), "spark")
    with site.job(site.acquire("garnet")) as free:
        for choice in ("true", "false"):
            api_of(free).submit(bell(), use_timeslot=choice)
    programs = [task.program_id for task in site.emulator.tasks()]
    assert programs == ["circuit", "circuit:timeslot", "circuit:timeslot", "circuit"]


def test_a_gate_may_open_with_the_first_task(site: Site) -> None:
    with site.job(site.later("garnet")) as job:
        iqm = api_of(job)
        assert iqm.get("/quantum-computers")["quantum_computers"]
        assert site.journal.history.sessions(job.lease.id) == []
        iqm.ended(iqm.submit(bell()))
        (session,) = site.journal.history.sessions(job.lease.id)
        assert session.session_id.startswith("gate-")


def test_a_job_that_is_only_bound_submits_nothing(site: Site) -> None:
    with site.job(site.bind("garnet")) as job:
        iqm = api_of(job)
        assert iqm.get("/calibration-sets/garnet/default/dynamic-quantum-architecture")
        refused = iqm.send("POST", "/jobs/garnet/circuit", body=bell())
        assert refused.status_code == 403
        assert "only bound" in refused.json()["message"]


def test_what_is_not_let_through(job: Job, iqm: IqmApi) -> None:
    for answer, status, said in (
        (iqm.send("POST", "/jobs/garnet/run", body={}), 400, "not let through"),
        (iqm.send("POST", "/jobs/garnet/circuit", body=bell(), tag="x" * 51), 400, "50 characters"),
        (iqm.send("POST", "/jobs/garnet/circuit", body={"shots": 1}), 400, "Invalid job payload"),
    ):
        assert answer.status_code == status
        assert said in answer.json()["message"]
    assert (
        requests.post(
            f"{job.site.url}/api/v1/quantum-computers/garnet/timeslots", timeout=SECONDS
        ).status_code
        == 404
    )
    nameless = requests.get(f"{job.site.url}/api/v1/quantum-computers", timeout=SECONDS)
    assert (nameless.status_code, nameless.json()["error_code"]) == (401, "unauthorized")


def test_a_submission_whose_answer_was_lost_is_told_and_not_sent_again(
    job: Job, iqm: IqmApi, tmp_path: Path
) -> None:
    lost = Fault(method="POST", path="/jobs/garnet/circuit", drop=Drop.AFTER)
    job.site.emulator.inject(lost)
    answer = iqm.send("POST", "/jobs/garnet/circuit", body=bell())
    assert answer.status_code == 502
    assert "lists no tasks" in answer.json()["message"]
    job.site.emulator.inject(lost)
    code, _, said = run_task(job, tmp_path, str(write_input(tmp_path, bell())), "out.json")
    assert code != 0
    assert "lists no tasks" in said
    assert len(job.site.emulator.tasks()) == 2
    assert {task.tags for task in job.site.emulator.tasks()} == {(job.session_id,)}


def test_a_server_that_is_away_is_not_the_jobs_fault(job: Job, iqm: IqmApi) -> None:
    job.site.emulator.inject(Fault(path="/quantum-computers", times=2, drop=Drop.BEFORE))
    answer = iqm.send("GET", "/quantum-computers")
    assert (answer.status_code, answer.json()["error_code"]) == (502, "internal_error")
    job.site.emulator.clear_faults()
    assert iqm.get("/quantum-computers")["quantum_computers"]


def test_task_runner_takes_what_qrmis_takes(job: Job, tmp_path: Path) -> None:
    path = write_input(tmp_path, bell(shots=100), tag="mine", use_timeslot=True)
    code, _, said = run_task(job, tmp_path, str(path), "out.json")
    assert code == 0, said
    result: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    assert sorted(result) == ["measurement_counts", "measurements"]
    assert sum(result["measurement_counts"][0]["counts"].values()) == 100
    (task,) = job.site.emulator.tasks()
    assert (task.program_id, task.tags) == ("circuit:timeslot", (job.session_id,))


def test_task_runners_shots_are_those_of_the_batch(job: Job, tmp_path: Path) -> None:
    path = write_input(tmp_path, bell(shots=100))
    code, _, said = run_task(job, tmp_path, "--shots=7", str(path), "out.json")
    assert code == 0, said
    assert len(json.loads((tmp_path / "out.json").read_text())["measurements"][0]["m"]) == 7


def test_task_runner_says_why_a_task_failed(job: Job, tmp_path: Path) -> None:
    path = write_input(tmp_path, batch(cz("QB1", "QB20"), measure("QB1")))
    code, _, said = run_task(job, tmp_path, str(path), "out.json")
    assert code not in {0, 2}
    assert "QB1-QB20 is not allowed as a locus" in said
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"program_id": "sampler", "parameters": {}}', "An input for a QPU of an IQM Server is"),
        ('{"iqmjson": {"circuits": [], "shots": 1}}', "iqmjson.circuits"),
        ('{"iqmjson": {"circuits": [{"name": "a", "instructions": []}], "shots": 0}}', "iqmjson.shots"),
        ('{"iqmjson": {"circuits": [{"name": "a"}]}}', "missing required field `instructions`"),
        ('{"iqmjson": {}, "job_type": "sweep"}', "job_type"),
        ("{", "this is not JSON"),
        ("", "it is empty"),
    ],
)
def test_task_runner_refuses_what_is_no_batch(job: Job, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "input.json"
    path.write_text(text)
    code, _, told = run_task(job, tmp_path, str(path), "out.json")
    assert code != 0
    assert said in told
    assert job.site.emulator.tasks() == []


def test_a_dry_run_compares_gates_and_loci_with_the_architecture(job: Job, tmp_path: Path) -> None:
    good = write_input(tmp_path, bell("QB4", "QB5"))
    code, said, _ = run_task(job, tmp_path, "--dry-run", str(good))
    assert code == 0, said
    assert "2 of 20 qubits, 1 cz, 2 measure, 3 prx" in said
    assert "shots: 1000" in said
    bad = write_input(
        tmp_path,
        batch(
            cz("QB1", "QB20"),
            {"name": "move", "locus": ["QB1", "QB2"]},
            prx("QB99"),
            measure("QB1"),
            shots=200_000,
        ),
    )
    code, said, _ = run_task(job, tmp_path, "--dry-run", str(bad))
    assert code != 0
    for problem in (
        "cz on qubits QB1 and QB20: the QPU has none there",
        "move is no operation of the QPU",
        "the QPU has no QB99",
        "200000 shots: the QPU takes 100000 at most",
    ):
        assert problem in said
    assert job.site.emulator.tasks() == []


def test_many_inputs_run_in_one_call(job: Job, tmp_path: Path) -> None:
    inputs = []
    for number in range(3):
        path = tmp_path / f"in{number}.json"
        path.write_text(json.dumps({"iqmjson": bell(shots=10 + number)}))
        inputs.append(str(path))
    code, _, said = run_task(job, tmp_path, "--output-dir=results", *inputs)
    assert code == 0, said
    counts = [
        sum(json.loads(path.read_text())["measurement_counts"][0]["counts"].values())
        for path in sorted((tmp_path / "results").glob("*.json"))
    ]
    assert counts == [10, 11, 12]


def test_ibms_backends_are_not_offered_for_iqms_qpus(job: Job) -> None:
    done = program(
        job,
        """
        from qpu_slurm import Qpu
        try:
            Qpu.of_job().backend()
        except Exception as error:
            print(error)
        """,
    )
    assert "transpile for it with iqm-client" in done.stdout, done.stderr
