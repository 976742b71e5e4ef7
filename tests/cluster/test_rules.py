# SPDX-License-Identifier: Apache-2.0
"""Who may use a QPU, on a real Slurm, with slurmdbd and without; the set-ups are those of docs/rules.md."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.admin.access import LUA
from qpu_slurm.errors import SlurmError
from qpu_slurm_devkit.lab import Lab
from tests.cluster.conftest import CHECKOUT, check_nothing_left

if TYPE_CHECKING:
    from collections.abc import Iterator

RULES = (CHECKOUT / "docs" / "rules.md").read_text()
TABLE = '[[qpu]]\nname = "ibm_fez"\n'
SETTINGS = {"AccountingStorageEnforce": "associations,qos"}
USERS = ("bin", "daemon")
ACCOUNTS = {
    "physics": ("bin",),
    "chemistry": ("daemon",),
    "course": ("bin", "daemon"),
    "other": ("bin", "daemon"),
}

JOB = "#!/bin/sh\n#SBATCH --qpu=ibm_fez\necho ran\n"
BY_PROJECT = "it is for account physics or chemistry or for user daemon"
ASK = "Ask quantum@centre.example for access."


def set_up(title: str) -> str:
    """Return the QPU's table of a set-up in docs/rules.md."""
    found = re.search(rf"^### {title}$.*?^```toml\n(.*?)^```", RULES, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


class Centre:
    """A cluster whose rules can be changed."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.decides = lab.gateway_config if lab.gateway else lab.config
        self._plain = self.decides.read_text()
        self._lua = lab.cluster.conf.with_name(LUA)

    def use(self, table: str, *, at_submission: bool = False) -> None:
        """Have a QPU's table be used; its rules at submission as well, or only at the job's start."""
        assert TABLE in self._plain
        self.decides.write_text(self._plain.replace(TABLE, table))
        if self.lab.gateway:
            before = self.lab.gateway_log.count('"reloaded"')
            os.kill(self.lab.gateway.pid, signal.SIGHUP)
            deadline = time.monotonic() + 60
            while self.lab.gateway_log.count('"reloaded"') == before:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        self._lua.unlink(missing_ok=True)
        if at_submission:
            done = self.lab.command("access", "--lua", config=self.decides)
            assert done.returncode == 0, done.stderr
            self._lua.write_text(done.stdout)

    def submit(self, account: str, user: str = "bin", *more: str, job: str = JOB) -> int:
        script = self.lab.cluster.home(user) / "job.sh"
        script.write_text(job)
        return self.lab.submit([f"--account={account}", *more, str(script)], user=user)

    def ends(self, job: int) -> tuple[str, str, str]:
        """Wait for a job; return its state, its output, and how often it was requeued."""
        state = self.lab.wait(job)
        shown = self.lab.cluster.ask("scontrol", "show", "job", str(job))
        restarts = re.search(r"Restarts=(\d+)", shown)
        assert restarts is not None
        return state, self.lab.cluster.output(job), restarts[1]

    def refused(self, job: int) -> str:
        """Return the sentence that a job was ended with as it started."""
        state, output, restarts = self.ends(job)
        assert (state, restarts) == ("FAILED", "0"), output
        assert output.startswith("qpu_slurm: ")
        return output.removeprefix("qpu_slurm: ").strip()


both = pytest.mark.parametrize("shared", ["gateway", "user"], indirect=True, scope="module")
"""On a cluster with gateway and slurmdbd, and on one without, where users have their own keys."""

with_gateway = pytest.mark.parametrize("shared", ["gateway"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest) -> Iterator[Centre]:
    licenses = {"ibm_fez": 100, "ibm_torino": 100}
    # Without a gateway, the rules have to do without slurmdbd as well, which takes long to start.
    accounting = request.param == "gateway"
    lab = Lab(
        CHECKOUT,
        credentials=request.param,
        accounting=accounting,
        settings=SETTINGS if accounting else None,
        licenses=licenses,
    )
    # Not `nobody`: Slurm 26.05 finds no associations of that user.
    lab.cluster.users = USERS
    with lab:
        for account, users in ACCOUNTS.items() if accounting else ():
            sacctmgr(lab, "add", "account", account)
            for user in users:
                sacctmgr(lab, "add", "user", user, f"account={account}")
        yield Centre(lab)


@pytest.fixture
def centre(shared: Centre) -> Iterator[Centre]:
    shared.lab.emulator.reset()
    yield shared
    check_nothing_left(shared.lab)


def sacctmgr(lab: Lab, *arguments: str) -> None:
    lab.cluster.ask("sacctmgr", "--immediate", "--quiet", *arguments)


@both
def test_free_for_all(centre: Centre) -> None:
    centre.use(set_up("Free for all"), at_submission=True)
    assert centre.ends(centre.submit("other"))[:2] == ("COMPLETED", "ran\n")


@both
def test_by_project_as_jobs_start(centre: Centre) -> None:
    centre.use(set_up("By project"))
    jobs = {
        "member": centre.submit("physics"),
        "operations": centre.submit("other", "daemon"),
        "stranger": centre.submit("other"),
        "course": centre.submit("course", "daemon"),
    }
    assert centre.ends(jobs["member"])[:2] == ("COMPLETED", "ran\n")
    assert centre.ends(jobs["operations"])[:2] == ("COMPLETED", "ran\n")
    sentence = centre.refused(jobs["stranger"])
    assert sentence == f"You may not use ibm_fez with account other: {BY_PROJECT}. {ASK}"
    assert centre.refused(jobs["course"]) == (
        f"You may not use ibm_fez with account course: {BY_PROJECT}, but not for account course. {ASK}"
    )
    report = centre.lab.command("report", "--json", config=centre.decides).stdout
    assert report.count('"refused"') >= 1
    srun = centre.lab.run(["srun", "--qpu=ibm_fez", "--account=other", "true"])
    assert srun.returncode != 0
    assert sentence in srun.stderr


@with_gateway
@pytest.mark.parametrize("command", ["sbatch", "srun", "salloc"])
def test_by_project_at_submission(centre: Centre, command: str) -> None:
    centre.use(set_up("By project"), at_submission=True)
    rest = ["--wrap=true"] if command == "sbatch" else ["true"]
    done = centre.lab.run([command, "--qpu=ibm_fez", "--account=other", *rest])
    assert done.returncode != 0
    assert f"You may not use ibm_fez with account other: {BY_PROJECT}. {ASK}" in done.stderr
    assert centre.lab.emulator.sessions() == []


@with_gateway
def test_at_submission_others_are_let_through(centre: Centre) -> None:
    centre.use(set_up("By project"), at_submission=True)
    assert centre.ends(centre.submit("physics"))[:2] == ("COMPLETED", "ran\n")
    assert centre.ends(centre.submit("other", "daemon"))[:2] == ("COMPLETED", "ran\n")
    with pytest.raises(SlurmError, match="but not for account course"):
        centre.submit("course", "daemon")


@with_gateway
def test_without_an_option_the_default_account_and_partition_are_compared(centre: Centre) -> None:
    rule = '[{ accounts = ["chemistry"], partitions = ["normal"] }]'
    centre.use(f"{TABLE}[qpu.access]\nallow = {rule}\n", at_submission=True)
    with pytest.raises(
        SlurmError, match="with account physics in partition normal: it is for account chemistry"
    ):
        centre.lab.submit(["--qpu=ibm_fez", "--wrap=true"])
    assert centre.ends(centre.lab.submit(["--qpu=ibm_fez", "--wrap=true"], user="daemon"))[0] == "COMPLETED"
    with pytest.raises(SlurmError, match="in partition quantum"):
        centre.lab.submit(["--qpu=ibm_fez", "--partition=quantum", "--wrap=true"], user="daemon")
    # Which one the job will run in is not known yet.
    either = centre.lab.submit(
        ["--qpu=ibm_fez", "--partition=quantum,normal", "--nodelist=c5", "--wrap=true"], user="daemon"
    )
    assert "in partition quantum:" in centre.refused(either)


@both
def test_of_a_heterogeneous_job_one_component_is_enough(centre: Centre) -> None:
    rule = '[{ accounts = ["physics"], partitions = ["quantum"] }]'
    centre.use(f"{TABLE}[qpu.access]\nallow = {rule}\n", at_submission=True)
    script = (
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez --partition=normal\n#SBATCH hetjob\n"
        "#SBATCH --qpu=ibm_fez --partition=quantum\necho ran\n"
    )
    assert centre.ends(centre.submit("physics", job=script))[:2] == ("COMPLETED", "ran\n")


@both
def test_users_with_their_own_keys(centre: Centre) -> None:
    table = set_up("Users with their own keys")
    if centre.lab.credentials != "user":
        # The same rule for a key of the centre's.
        table = table.replace('credentials = "user"\n', "")
    centre.use(table, at_submission=True)
    assert centre.ends(centre.submit("other"))[:2] == ("COMPLETED", "ran\n")
    # slurmctld does not know the groups: the job is refused as it starts.
    assert centre.refused(centre.submit("other", "daemon")) == (
        "You may not use ibm_fez: it is for everyone, but not for group daemon. "
        "Ask the admin of your cluster for access."
    )


@with_gateway
def test_rules_that_cannot_be_read_refuse_nothing_at_submission(centre: Centre) -> None:
    centre.use(set_up("By project"))
    Path(centre.lab.cluster.conf.with_name(LUA)).write_text("return nonsense()")
    assert BY_PROJECT in centre.refused(centre.submit("other"))


@with_gateway
def test_check_reports_names_that_there_are_not(centre: Centre) -> None:
    centre.use(
        f"""{TABLE}[qpu.access]
        allow = [
            {{ users = ["adda"], groups = ["grup"] }},
            {{ accounts = ["Physics", "phsics"], partitions = ["quantum", "quamtum"] }},
            {{ qos = ["normal", "norml"] }},
        ]
        """,
        at_submission=True,
    )
    said = centre.lab.command("check", config=centre.decides).stdout
    found = re.findall(r"access: The rules name a (.+?)[,:]", said)
    assert sorted(found) == [
        *("QOS norml", "account phsics", "group grup", "partition quamtum", "user adda"),
    ]
    centre.use(set_up("By project"))
    assert f"{LUA}: does not have the rules" in centre.lab.command("check", config=centre.decides).stdout
