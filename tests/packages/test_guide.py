# SPDX-License-Identifier: Apache-2.0
"""An admin follows docs/install.md on four hosts with a plain Slurm, from the packages to their removal.

Each command block runs where it says. `CHECKS` has what must be true after a section.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable  # noqa: TC003 - an alias is made of it
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.packages.cluster import HOME, USER, Cluster
from tests.packages.guide import Block, StopWatch, blocks_of
from tests.packages.root import CHECKOUT, with_slurm
from tests.packages.site import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.packages.conftest import Debs

GUIDE: Final = CHECKOUT / "docs/install.md"

BUILD_HOST: Final = "build host"
"""The fixture `debs` is that host: it runs `make deb` in a chroot."""

JOBS: Final = 20
"""How many run while the packages are replaced."""

FIRST_TASK: Final = "5. The first job"


def test_every_block_says_where_it_runs() -> None:
    blocks = blocks_of(GUIDE)
    assert len(blocks) > 20
    assert [block for block in blocks if not block.hosts] == []
    assert [block.text for block in blocks if block.hosts == (BUILD_HOST,)] == [
        "make deb\n",
        "install -D -m 0644 -t /shared/qpu_slurm dist/*.deb\n",
    ]


@pytest.fixture
def shared(debs: Debs) -> Iterator[Path]:
    """Return what all hosts share, with the packages that the build host has put there."""
    directory = Path(tempfile.mkdtemp(prefix="shared-", dir=with_slurm(debs.release).parent))
    directory.chmod(0o755)
    for name, packages in {"qpu_slurm": debs.older, "qpu_slurm_next": debs.newer}.items():
        (directory / name).mkdir(parents=True)
        for package in packages:
            shutil.copy(package, directory / name)
    yield directory
    shutil.rmtree(directory)


@pytest.mark.timeout(3600)  # four hosts and a cluster's life
@pytest.mark.parametrize("debs", ["trixie"], indirect=True)
def test_the_guide_leads_through_a_clusters_life(
    debs: Debs, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = StopWatch()
    with Cluster(with_slurm(debs.release), shared) as cluster:
        before = {name: left(cluster, name) for name in cluster.hosts}
        section = ""
        for block in blocks_of(GUIDE):
            if section != block.section:
                CHECKS.get(section, nothing_more)(cluster)
                section = block.section
                BEFORE.get(section, nothing_more)(cluster)
            if block.hosts != (BUILD_HOST,):
                follow(cluster, block, watch)
        for name in cluster.hosts:
            assert left(cluster, name) - before[name] <= {"/var/backups/qpu_slurm", "/var/lib/qpu_slurm"}
        a_plain_job_runs(cluster)
    sections = list(watch.sections)
    first = sum(watch.sections[name] for name in sections[: sections.index(FIRST_TASK) + 1])
    with capsys.disabled():
        sys.stdout.write(f"\n{watch}\nUp to the first executed task: {first:.0f} s\n")


def follow(cluster: Cluster, block: Block, watch: StopWatch) -> None:
    """Do what a block says, on each of its hosts."""
    for name in block.hosts:
        host = cluster[name]
        if block.path:
            host.write(block.path, cluster.settle(block.text))
            continue
        user, directory = (USER, HOME) if block.user else ("root", "/root")
        typed = f"{cluster.account.api_key}\n" if "/dev/stdin" in block.text else ""
        ran = host.run(block.text, user=user, directory=directory, stdin=typed)
        watch.add(block.section, ran.seconds)
        assert ran.status == 0, f"{block.section}, {name}:\n{block.text}\n{ran.output}"


def left(cluster: Cluster, name: str) -> set[str]:
    """Return what a host has of ours."""
    find = "find / -xdev -name '*qpu*' -not -path '/usr/src/*' -not -path '/var/lib/dpkg/*'"
    found = cluster[name].run(find)
    return set(found.output.splitlines())


def nothing_more(cluster: Cluster) -> None:
    """The commands have succeeded, and that is all."""


def executed(cluster: Cluster, result: str) -> None:
    """A task's result is there, once."""
    path = cluster.home / result
    until(path.exists)
    assert "results" in json.loads(path.read_text())
    path.unlink()


def a_job_executes_a_task(cluster: Cluster) -> None:
    command = "srun --qpu=ibm_fez --partition=quantum --time=5 task_runner ibm_fez input.json more.json"
    ran = cluster["c1"].run(command, user=USER, directory=HOME)
    assert ran.status == 0, ran.output
    executed(cluster, "more.json")


def a_plain_job_runs(cluster: Cluster) -> None:
    for partition in ("quantum", "normal"):
        ran = cluster["c1"].run(f"srun --partition={partition} true", user=USER, directory=HOME)
        assert (ran.status, ran.output) == (0, "")


def no_lease_is_left(cluster: Cluster) -> None:
    until(lambda: cluster["controller"].run("qpu-slurm leases --json").output.strip() == "[]")


def first_job(cluster: Cluster) -> None:
    executed(cluster, "result.json")
    no_lease_is_left(cluster)
    session = cluster["controller"].run("scontrol show job | grep AdminComment").output
    assert "session" in session


def second_controller(cluster: Cluster) -> None:
    executed(cluster, "again.json")
    no_lease_is_left(cluster)


def versions(cluster: Cluster) -> set[str]:
    query = "dpkg-query -W -f '${Version}\\n' qpu-slurm"
    return {host.run(query).output.strip() for host in cluster.hosts.values()}


def waited(cluster: Cluster) -> None:
    executed(cluster, "waited.json")


def restored(cluster: Cluster) -> None:
    [cluster.version] = versions(cluster)
    leases = json.loads(cluster["controller"].run("qpu-slurm leases --all --json").output)
    assert len(leases) >= 4
    a_job_executes_a_task(cluster)


def jobs_that_go_on(cluster: Cluster) -> None:
    """Submit jobs that execute a task before a signal and one after it; wait until some have executed one.

    The first tasks of the others are in the service's queue while the packages are replaced: each job has a
    session of its own, and one session at a time has the QPU.
    """
    script = """\
#!/bin/sh
task_runner ibm_fez input.json "before-$SLURM_JOB_ID.json" || exit 1
while [ ! -e upgraded ]; do sleep 1; done
task_runner ibm_fez input.json "after-$SLURM_JOB_ID.json"
"""
    cluster.write("go_on.sh", script)
    submit = "sbatch --parsable --qpu=ibm_fez --partition=quantum --time=30 go_on.sh"
    for _ in range(JOBS):
        ran = cluster["c1"].run(submit, user=USER, directory=HOME)
        assert ran.status == 0, ran.output
        cluster.jobs.add(ran.output.strip())
    running = "squeue --noheader --states=RUNNING --format=%i"
    until(lambda: set(cluster["c1"].run(running).output.split()) == cluster.jobs, timeout=900)
    until(lambda: len(list(cluster.home.glob("before-*"))) > 2, timeout=900)


def jobs_went_on(cluster: Cluster) -> None:
    """All of the jobs have executed both of their tasks, under one lease each."""
    cluster.write("upgraded", "")
    jobs = cluster.jobs
    show = "scontrol show job {} | grep -o 'JobState=[A-Z]*'"

    def over() -> bool:
        states = {cluster["c1"].run(show.format(job)).output.strip() for job in jobs}
        assert states <= {"JobState=RUNNING", "JobState=COMPLETING", "JobState=COMPLETED"}, states
        return states == {"JobState=COMPLETED"}

    until(over, timeout=900)
    for job in jobs:
        for result in (f"before-{job}.json", f"after-{job}.json"):
            executed(cluster, result)
    no_lease_is_left(cluster)
    leases = json.loads(cluster["controller"].run("qpu-slurm leases --all --json").output)
    mine = [lease for lease in leases if str(lease["job_id"]) in jobs]
    assert len(mine) == JOBS, mine
    assert {len(lease["sessions"]) for lease in mine} == {1}, mine
    upgraded(cluster)


def upgraded(cluster: Cluster) -> None:
    """All hosts have the same packages, which are others than before."""
    [version] = versions(cluster)
    assert version != cluster.version
    cluster.version = version
    a_job_executes_a_task(cluster)


BEFORE: Final[dict[str, Callable[[Cluster], None]]] = {"Upgrading qpu_slurm": jobs_that_go_on}

CHECKS: Final[dict[str, Callable[[Cluster], None]]] = {
    FIRST_TASK: first_job,
    "6. A second controller": second_controller,
    "7. Configless nodes": lambda cluster: executed(cluster, "configless.json"),
    "8. Waiting in the queue: licenses": waited,
    "9. Back up and restore": restored,
    "Upgrading qpu_slurm": jobs_went_on,
    "Rolling back": upgraded,
    "Upgrading Slurm": a_job_executes_a_task,
}
