# SPDX-License-Identifier: Apache-2.0
"""Asking Slurm about jobs, in each way that there is, and asking it to do something with them."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pytest

from qpu_slurm.config import SlurmConfig
from qpu_slurm.errors import SlurmError
from qpu_slurm.slurm.control import Control
from qpu_slurm.slurm.job import MAX_ADMIN_COMMENT, Gres, JobRecord
from qpu_slurm.slurm.query import BatchQuery, Query, connect
from tests.cluster.ways import WAYS

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from qpu_slurm_devkit.cluster import Cluster

HET = (
    *("--time=5", "--wrap=sleep 60", ":"),
    *("--partition=quantum", "--gres=qpu:1", "--time=7", "--wrap=sleep 60"),
)
FORGERY = (
    "x'\n99          N/A         0           RUNNING             1   \n\tJobState=FAILED AdminComment=forged"
)


@pytest.fixture
def config(cluster: Cluster) -> SlurmConfig:
    return SlurmConfig(conf=cluster.conf, bin=cluster.bin)


@pytest.fixture(params=WAYS)
def query(request: pytest.FixtureRequest, config: SlurmConfig) -> Query:
    return WAYS[request.param](config)


@pytest.fixture
def control(config: SlurmConfig) -> Control:
    return Control(config)


@pytest.fixture(autouse=True)
def _leave_no_jobs(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.cancel_jobs()
    cluster.wait_until_idle()


def _job(query: Query, job_id: int, state: str | None = None, reason: str | None = None) -> JobRecord:
    deadline = time.monotonic() + 60
    while True:
        job = query.job(job_id)
        assert job is not None
        if state in {None, job.state} and reason in {None, job.reason}:
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.05)


def _check_list(query: Query, *job_ids: int) -> None:
    """Fail if a job is listed with anything else than what is said about it alone."""
    listed = {job.job_id: job for job in query.jobs()}
    for job_id in job_ids:
        job = _job(query, job_id)
        assert listed[job_id].gres == ()
        assert msgspec.structs.replace(listed[job_id], gres=job.gres, time_left=job.time_left) == job
        if job.time_left is None:
            assert listed[job_id].time_left is None
        else:
            assert listed[job_id].time_left == pytest.approx(job.time_left, abs=5)


class Kind(NamedTuple):
    """One kind of job: how it comes into being, and what is said about it then."""

    arguments: Sequence[str]
    state: str = "RUNNING"
    time_left: int | None = 600
    gres: tuple[Gres, ...] = ()
    by_admin: str = ""
    """What SlurmUser does with it once it runs."""


TEN = ("--time=10", "--wrap=sleep 60")
HELD = ("--hold", *TEN)
KINDS = {
    "plain": Kind(TEN),
    "no limit": Kind(("--time=UNLIMITED", "--wrap=sleep 60"), time_left=None),
    "a limit of more than a year": Kind(("--time=400-0", "--wrap=sleep 60"), time_left=None),
    "its limit moved": Kind(TEN, time_left=1200, by_admin="scontrol update TimeLimit=20 JobId={}"),
    "waiting": Kind(("--begin=now+1hour", *TEN), "PENDING"),
    "waiting without a limit": Kind(("--begin=now+1hour", "--wrap=true"), "PENDING", None),
    "held": Kind(HELD, "PENDING"),
    "held, in one of two partitions": Kind(("--partition=normal,quantum", *HELD), "PENDING"),
    "held array": Kind(("--array=1-3", *HELD), "PENDING"),
    "suspended": Kind(TEN, "SUSPENDED", by_admin="scontrol suspend {}"),
    "requeued and held": Kind(("--requeue", *TEN), "PENDING", by_admin="scontrol requeuehold {}"),
    "completed": Kind(("--time=10", "--wrap=true"), "COMPLETED"),
    "failed": Kind(("--time=10", "--wrap=false"), "FAILED"),
    "cancelled": Kind(TEN, "CANCELLED", by_admin="scancel {}"),
    "a gres": Kind(("--partition=quantum", "--gres=qpu:1", *HELD), "PENDING", gres=(Gres("qpu", None, 1),)),
    "a gres without a count": Kind(
        ("--partition=quantum", "--gres=qpu", *HELD), "PENDING", gres=(Gres("qpu", None, 1),)
    ),
    "a gres of a type, without a count": Kind(
        ("--partition=quantum", "--gres=qpu:ibm_fez", *HELD), "PENDING", gres=(Gres("qpu", "ibm_fez", 1),)
    ),
    "a gres that is none": Kind(
        ("--partition=quantum", "--gres=qpu:0", *HELD), "PENDING", gres=(Gres("qpu", None, 0),)
    ),
    "with licenses and an account": Kind(("--account=physics", "--licenses=ibm_fez:2,other", *TEN)),
    "an account of many letters": Kind((f"--account={'é' * 55}x{'é' * 20}", *TEN)),
    "odd strings": Kind(
        (f"--job-name={FORGERY}", f"--comment={FORGERY}\udcff\udcfe", *TEN),
    ),
    "a step of an odd name": Kind(("--time=10", "--wrap=srun --job-name='\udcff%j\t' sleep 60")),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_of_job(cluster: Cluster, query: Query, kind: Kind) -> None:
    job_id = cluster.submit(kind.arguments)
    if kind.by_admin:
        _job(query, job_id, "RUNNING")
        done = cluster.run(kind.by_admin.format(job_id).split(), user=cluster.slurm_user)
        assert done.returncode == 0, done.stderr
    job = _job(query, job_id, kind.state)
    assert (job.user_id, job.leader, job.batch) == (pwd.getpwnam(cluster.users[0]).pw_uid, job_id, True)
    assert job.gres == kind.gres
    if kind.time_left is None or job.time_left is None:
        assert job.time_left is kind.time_left
    else:
        assert kind.time_left - 20 < job.time_left <= kind.time_left
    assert [component.job_id for component in query.components(job_id)] == [job_id]
    _check_list(query, job_id)


def test_a_batch_job(cluster: Cluster, query: Query) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    job_id = cluster.submit(
        ["--time=10", "--partition=quantum", "--gres=qpu:1", "--account=physics", "--wrap=sleep 60"]
    )
    job = _job(query, job_id, "RUNNING")
    assert job.submitted_at is not None
    assert before <= job.submitted_at <= datetime.now(UTC)
    assert job.time_left is not None
    assert 580 < job.time_left <= 600
    assert job == JobRecord(
        job_id=job_id,
        het_job_id=None,
        user_id=pwd.getpwnam(cluster.users[0]).pw_uid,
        state="RUNNING",
        batch=True,
        gres=(Gres("qpu", None, 1),),
        time_left=job.time_left,
        submitted_at=job.submitted_at,
        account="physics",
        partition="quantum",
        admin_comment="",
    )
    assert job.leader == job_id


def test_many_jobs_are_found_at_once(cluster: Cluster, query: BatchQuery) -> None:
    leader = cluster.submit(HET)
    plain = cluster.submit(TEN)
    array = cluster.submit(("--array=1-2", *TEN))
    for job_id in (leader + 1, plain, array):
        _job(query, job_id, "RUNNING")
    asked = (plain, 4_000_000, leader + 1, array, leader)
    found = query.many(asked)
    assert {job_id: [job.job_id for job in jobs] for job_id, jobs in found.items()} == {
        plain: [plain],
        4_000_000: [],
        leader + 1: [leader, leader + 1],
        array: [array],
        leader: [leader, leader + 1],
    }

    def lasting(jobs: Iterable[JobRecord]) -> list[JobRecord]:
        """Leave out what changes from one question to the next: a job may end between them."""
        return [msgspec.structs.replace(job, time_left=None, state="", reason="") for job in jobs]

    for job_id in asked:
        assert lasting(found[job_id]) == lasting(query.components(job_id))
    assert query.many([4_000_000]) == {4_000_000: []}


def test_the_components_of_a_heterogeneous_job(cluster: Cluster, query: Query) -> None:
    leader = cluster.submit(HET)
    jobs = [_job(query, leader), _job(query, leader + 1)]
    assert [job.job_id for job in jobs] == [leader, leader + 1]
    assert [job.leader for job in jobs] == [leader, leader]
    assert [job.gres for job in jobs] == [(), (Gres("qpu", None, 1),)]
    assert [job.batch for job in jobs] == [True, True]
    _check_list(query, leader, leader + 1)
    for job_id in (leader, leader + 1):
        assert [job.job_id for job in query.components(job_id)] == [leader, leader + 1]


def test_why_a_job_waits(cluster: Cluster, query: Query) -> None:
    assert _job(query, cluster.submit(["--begin=now+1hour", "--wrap=true"])).reason == "BeginTime"
    assert _job(query, cluster.submit(["--hold", "--wrap=true"])).reason == "JobHeldUser"


def test_a_reason_of_many_words(cluster: Cluster, query: Query) -> None:
    nodes = "c1,c2,c3,c4"
    node = ["scontrol", "update", f"NodeName={nodes}"]
    drained = cluster.run([*node, "State=DRAIN", "Reason=test"], user=cluster.slurm_user)
    assert drained.returncode == 0, drained.stderr
    try:
        job_id = cluster.submit([f"--nodelist={nodes}", "--wrap=true"])
        deadline = time.monotonic() + 60
        while not _job(query, job_id).reason.startswith("ReqNodeNotAvail"):
            assert time.monotonic() < deadline, _job(query, job_id)
            time.sleep(0.05)
        _check_list(query, job_id)
        cluster.cancel_jobs()
    finally:
        cluster.run([*node, "State=RESUME"], user=cluster.slurm_user)


def test_a_run_is_the_same_until_the_job_is_requeued(
    cluster: Cluster, query: Query, control: Control
) -> None:
    job_id = cluster.submit(["--requeue", "--time=10", "--wrap=sleep 60"])
    first = _job(query, job_id, "RUNNING").run
    time.sleep(1)
    for change in (["suspend"], ["resume"], ["update", "TimeLimit=5"]):
        done = cluster.run(
            ["scontrol", change[0], f"JobId={job_id}" if change[1:] else str(job_id), *change[1:]],
            user=cluster.slurm_user,
        )
        assert done.returncode == 0, done.stderr
        assert _job(query, job_id).run == first
    control.requeue(_job(query, job_id), 1)
    assert int(_job(query, job_id, "PENDING").run) > int(first)


def test_the_elements_of_an_array_that_wait_after_a_requeue(
    cluster: Cluster, query: Query, control: Control
) -> None:
    """By default, squeue hides them behind those that have not started yet, and behind the last one."""
    array = cluster.submit(["--requeue", "--array=1-5%2", "--wrap=sleep 60"])
    _elements(query, array, {1: "RUNNING", 2: "RUNNING"})
    control.requeue(_elements(query, array, {2: "RUNNING"})[2], 60)
    found = _elements(query, array, {1: "RUNNING", 2: "PENDING", 3: "RUNNING"})
    assert found[2].job_id != array
    assert _job(query, array).element is None  # the last two have not started yet
    assert [component.job_id for component in query.components(found[2].job_id)] == [found[2].job_id]


def test_what_is_done_to_one_element_of_an_array_is_done_to_no_other(
    cluster: Cluster, query: Query, control: Control
) -> None:
    """The last one to start has the array's own number, with which scontrol means all of them."""
    array = cluster.submit(["--requeue", "--array=1-3", "--wrap=sleep 60"])
    found = _elements(query, array, dict.fromkeys((1, 2, 3), "RUNNING"))
    last = found[3]
    assert last.job_id == array
    control.set_admin_comment(last.job_id, "the last one's")
    control.requeue(last, 60)
    found = _elements(query, array, {1: "RUNNING", 2: "RUNNING", 3: "PENDING"})
    assert {index: job.admin_comment for index, job in found.items()} == {1: "", 2: "", 3: "the last one's"}
    control.requeue(found[2], 60)
    _elements(query, array, {1: "RUNNING", 2: "PENDING", 3: "PENDING"})
    time.sleep(4)  # a node takes a run that starts earlier for the last one
    control.start_now(found[3])
    _elements(query, array, {1: "RUNNING", 2: "PENDING", 3: "RUNNING"})


def _elements(query: Query, array: int, states: Mapping[int, str]) -> dict[int, JobRecord]:
    """Wait until elements of an array are in these states; return those that have ever started."""
    deadline = time.monotonic() + 30
    while True:
        found = {
            job.element.number: job for job in query.jobs() if job.element and job.element.array == array
        }
        if states.items() <= {index: job.state for index, job in found.items()}.items():
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_the_tasks_of_an_array(cluster: Cluster, query: Query) -> None:
    array = cluster.submit(["--array=1-2", "--wrap=sleep 60"])
    _job(query, array, "RUNNING")
    running = [job for job in query.jobs() if job.state == "RUNNING"]
    assert array in {job.job_id for job in running}
    assert len({job.job_id for job in running}) == 2
    _check_list(query, *(job.job_id for job in running))
    for job in running:
        assert _job(query, job.job_id).job_id == job.job_id
        assert [component.job_id for component in query.components(job.job_id)] == [job.job_id]


@pytest.mark.parametrize("command", [["salloc", "sleep", "60"], ["srun", "sleep", "60"]])
def test_a_job_without_a_script(cluster: Cluster, query: Query, command: Sequence[str]) -> None:
    with _interactive(cluster, command):
        job = _interactive_job(query)
        assert not job.batch
        assert job.state == "RUNNING"
        _check_list(query, job.job_id)


def test_a_job_without_a_limit_has_much_time_left_or_no_limit(cluster: Cluster, query: Query) -> None:
    waiting = _job(query, cluster.submit(["--hold", "--wrap=true"]))
    assert waiting.time_left is None
    # Slurm's own idea of no limit: a year.
    running = _job(query, cluster.submit(["--wrap=sleep 60"]), "RUNNING")
    assert running.time_left is None or running.time_left > 300 * 24 * 3600


def test_an_unknown_job_is_none(query: Query) -> None:
    assert query.job(4_000_000) is None
    assert query.components(4_000_000) == []


def test_what_a_user_writes_cannot_forge_a_record(cluster: Cluster, query: Query) -> None:
    before = {job.job_id for job in query.jobs()}
    job_id = cluster.submit(["--hold", f"--job-name={FORGERY}", f"--comment={FORGERY}", "--wrap=true"])
    job = _job(query, job_id, "PENDING")
    assert job.admin_comment == ""
    assert {job.job_id for job in query.jobs()} - before == {job_id}


@pytest.mark.parametrize(
    "text",
    [
        '{"qpu_slurm": {"sessions": {"ibm_fez": "a-b", "ibm_torino": null}}}',
        '{"quotes": "a \\"b\\" \'c\'", "equals": "Comment=x,y z"}',
        f"first{FORGERY}",
        "Grüße an die Quanten ⚛",
        "x" * MAX_ADMIN_COMMENT,
        "",
    ],
    ids=["ours", "quotes", "forgery", "unicode", "longest", "empty"],
)
def test_an_admin_comment_is_read_as_it_was_written(
    cluster: Cluster, query: Query, control: Control, text: str
) -> None:
    job_id = cluster.submit(["--hold", "--wrap=true"])
    control.set_admin_comment(job_id, "before")
    control.set_admin_comment(job_id, text)
    assert _job(query, job_id).admin_comment == text
    _check_list(query, job_id)


def test_an_admin_comment_that_is_no_text_hides_no_job(cluster: Cluster, query: Query) -> None:
    job_id = cluster.submit(["--hold", "--wrap=true"])
    cluster.run(["scontrol", "update", f"JobId={job_id}", "AdminComment=\udcff"], user=cluster.slurm_user)
    assert _job(query, job_id).admin_comment == "\N{REPLACEMENT CHARACTER}"
    _check_list(query, job_id)


def test_an_admin_comment_that_could_not_be_read_back_is_refused(cluster: Cluster, control: Control) -> None:
    job_id = cluster.submit(["--hold", "--wrap=true"])
    with pytest.raises(SlurmError, match="4000 bytes"):
        control.set_admin_comment(job_id, "ä" * 2001)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["leader first", "leader last"])
def test_each_component_has_its_own_admin_comment(
    cluster: Cluster, query: Query, control: Control, order: Sequence[int]
) -> None:
    leader = cluster.submit(["--begin=now+1hour", *HET])
    for offset in order:
        control.set_admin_comment(leader + offset, f"component {offset}")
    assert _job(query, leader).admin_comment == "component 0"
    assert _job(query, leader + 1).admin_comment == "component 1"


@pytest.mark.parametrize("arguments", [("--time=5", "--wrap=true"), HET], ids=["plain", "heterogeneous"])
def test_requeue_starts_a_job_again_later(
    cluster: Cluster, query: Query, control: Control, arguments: Sequence[str]
) -> None:
    script = cluster.home() / "again.sh"
    script.write_text('#!/bin/sh\n[ -n "$SLURM_RESTART_COUNT" ] || sleep 60\necho run $SLURM_RESTART_COUNT\n')
    script.chmod(0o755)
    components = [argument for argument in arguments if not argument.startswith("--wrap")]
    job_id = cluster.submit(["--requeue", *components, str(script)])
    before = _job(query, job_id, "RUNNING")
    control.requeue(before, 5)
    # As the hook of another component does at the same time.
    with contextlib.suppress(SlurmError):
        control.requeue(before, 5)
    # Its first run has been cleaned up; it is in the queue, and starts later.
    waiting = _job(query, job_id, "PENDING", "BeginTime")
    assert int(waiting.run) > int(before.run)
    _wait_for_the_second_run(cluster, query, control, job_id)
    assert cluster.output(job_id).endswith("run 1\n")


def _wait_for_the_second_run(cluster: Cluster, query: Query, control: Control, job_id: int) -> None:
    """Wait for the end of a requeued job; see docs/slurm-notes.md for why it may need help.

    Slurm makes it wait for two minutes if its first run's end took longer than the delay, on a busy machine;
    and a heterogeneous one starts only as the backfill scheduler looks again.
    """
    deadline = time.monotonic() + 150
    begin = time.monotonic()
    while (job := query.job(job_id)) is None or job.state != "COMPLETED":
        assert time.monotonic() < deadline, job
        if job is not None and job.reason == "BeginTime" and time.monotonic() - begin > 10:
            with contextlib.suppress(SlurmError):  # it starts just now
                control.start_now(job)
        time.sleep(0.5)
    assert cluster.wait(job_id) == "COMPLETED"


def test_requeue_a_job_that_waits_already_only_delays_it(
    cluster: Cluster, query: Query, control: Control
) -> None:
    job_id = cluster.submit(["--begin=now+1hour", "--wrap=true"])
    control.requeue(_job(query, job_id), 0)
    assert cluster.wait(job_id) == "COMPLETED"
    assert query.job(job_id) is not None


def test_requeue_says_why_it_cannot(cluster: Cluster, query: Query, control: Control) -> None:
    job_id = cluster.submit(["--no-requeue", "--wrap=sleep 60"])
    job = _job(query, job_id, "RUNNING")
    with pytest.raises(SlurmError, match="presently disabled"):
        control.requeue(job, 1)
    with _interactive(cluster, ["srun", "sleep", "60"]):
        interactive = _interactive_job(query)
        with pytest.raises(SlurmError, match="Only batch jobs"):
            control.requeue(interactive, 1)


@pytest.mark.parametrize("command", [["salloc", "sleep", "60"], ["srun", "sleep", "60"]])
def test_notify_reaches_who_waits(
    cluster: Cluster, query: Query, control: Control, command: Sequence[str]
) -> None:
    with _interactive(cluster, command) as client:
        control.notify(_interactive_job(query).job_id, "The QPU is away;\n 'try' \"later\".")
        assert client.stderr is not None
        assert any("The QPU is away; 'try' \"later\"." in line for line in client.stderr)


def test_a_slurm_that_is_not_there_is_an_error(cluster: Cluster, tmp_path: Path) -> None:
    silent = SlurmConfig(conf=tmp_path / "slurm.conf", bin=cluster.bin, timeout=1)
    with pytest.raises(SlurmError, match=rf"squeue .*There is no {tmp_path}/slurm.conf .*/run/slurm/conf"):
        connect(silent).job(1)
    with pytest.raises(SlurmError, match="No such file"):
        Control(SlurmConfig(conf=cluster.conf, bin=tmp_path)).notify(1, "hello")


@contextlib.contextmanager
def _interactive(cluster: Cluster, command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    with cluster.popen(command) as client:
        try:
            yield client
        finally:
            os.killpg(client.pid, signal.SIGKILL)


def _interactive_job(query: Query) -> JobRecord:
    deadline = time.monotonic() + 60
    while True:
        found = [job for job in query.jobs() if not job.batch and job.state == "RUNNING"]
        if found:
            return found[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
