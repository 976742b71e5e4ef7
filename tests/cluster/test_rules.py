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
from qpu_slurm.config import load
from qpu_slurm.errors import SlurmError
from qpu_slurm.journal.journal import Journal
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
    "class": ("bin", "daemon"),
}

JOB = "#!/bin/sh\n#SBATCH --qpu=ibm_fez\necho ran\n"
BY_PROJECT = "it is for account physics or chemistry or for user daemon"
ASK = "Ask quantum@centre.example for access."


def set_up(title: str) -> str:
    """Return the tables of a set-up in docs/rules.md that come first."""
    return blocks(title)[0]


def blocks(title: str) -> list[str]:
    """Return all tables of a set-up in docs/rules.md."""
    found = re.search(rf"^### {title}$(.*?)(?=^### |\Z)", RULES, re.DOTALL | re.MULTILINE)
    assert found is not None
    return re.findall(r"^```toml\n(.*?)^```", found[1], re.DOTALL | re.MULTILINE)


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


@both
def test_by_project_each_has_its_budget(centre: Centre) -> None:
    centre.use("".join(blocks("By project")))
    assert centre.ends(centre.submit("physics"))[:2] == ("COMPLETED", "ran\n")
    assert centre.ends(centre.submit("chemistry", "daemon"))[:2] == ("COMPLETED", "ran\n")
    # Chemistry has an hour, and physics more than a session may live.
    assert sorted(session.max_ttl for session in centre.lab.emulator.sessions()) == [3600, 28_800]


@both
def test_a_teaching_class_with_60_seconds_each(centre: Centre) -> None:
    centre.use(set_up("Teaching class with 60 s each"))

    def budget(*argv: str) -> str:
        done = centre.lab.command("budget", *argv, config=centre.decides)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert centre.ends(centre.submit("class"))[:2] == ("COMPLETED", "ran\n")
    # What one student has used up is not the other's.
    of_one = ["--account", "class", "--user", "bin", "--period", "day", "--reason", "a test"]
    budget("set", "--limit", "0", *of_one)
    sentence = centre.refused(centre.submit("class"))
    assert sentence.startswith("The budget of user bin of account class is used up: 0 s of 0 s today.")
    assert centre.ends(centre.submit("class", "daemon"))[:2] == ("COMPLETED", "ran\n")
    srun = centre.lab.run(["srun", "--qpu=ibm_fez", "--account=class", "true"])
    assert srun.returncode != 0
    assert sentence in srun.stderr
    assert "90 s left" in budget("grant", "90s", *of_one)
    assert centre.ends(centre.submit("class"))[:2] == ("COMPLETED", "ran\n")
    budget("remove", *of_one)
    if not centre.lab.gateway:
        return  # nor is there a slurmdbd
    absent = centre.lab.command(
        *("budget", "set", "--account", "clas", "--limit", "1h", "--reason", "a typo"), config=centre.decides
    )
    assert absent.returncode == 1
    assert "Slurm has no account 'clas'" in absent.stderr


@with_gateway
def test_from_80_percent_on_each_step_says_so(centre: Centre) -> None:
    centre.use(f'{TABLE}[[budget]]\naccount = "class"\nlimit = "10h"\n')
    assert centre.ends(centre.submit("class"))[:2] == ("COMPLETED", "ran\n")
    session_id = centre.lab.emulator.sessions()[0].id
    with Journal(load(centre.decides).journal) as journal:
        deadline = time.monotonic() + 60
        while journal.history.unaccounted():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        journal.history.account(session_id, locked=9 * 3600, executed=1, tasks=[])
    assert centre.ends(centre.submit("class"))[1] == (
        "qpu_slurm: 90% of the budget of account class is used: 32400 s of 36000 s this month.\nran\n"
    )
