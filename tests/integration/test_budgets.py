# SPDX-License-Identifier: Apache-2.0
"""Budgets with real processes: brokers that are killed, the gateway, and the unmodified clients behind it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
import requests

from qpu_slurm.config.budgets import ALL, Budget, Period, Scope
from qpu_slurm.leases.budgets import Budgets
from qpu_slurm_devkit.emulator import Drop, Emulator, Fault
from tests.integration.gateway_site import PROGRAM, SECONDS, USER, Site, program, run
from tests.integration.steps import TASK_RUNNER, sampler_input
from tests.integration.test_broker import Site as Controller
from tests.integration.test_broker import answer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qpu_slurm.config import Config
    from qpu_slurm.journal.balances import Balance
    from qpu_slurm.journal.journal import Journal
    from tests.integration.gateway_site import Job


USERS = itertools.count(40_000)
"""Another user for each test of the gateway that all tests share: what was used stays used."""


def put(journal: Journal, seconds: float, *scope: str) -> None:
    budget = Budget(scope=Scope(*scope), period=Period.MONTH, limit=seconds)
    journal.budgets.put(budget, by=0, reason="a test")


def only(config: Config, journal: Journal) -> Balance:
    (balance,) = Budgets(config, journal).all()
    return balance


# Without a gateway: each hook has a broker of its own.


@pytest.fixture
def controller(emulator: Emulator, tmp_path: Path) -> Iterator[Controller]:
    with Controller(emulator, tmp_path, emulator.accounts[0]) as controller:
        yield controller


def test_two_hooks_at_once_do_not_spend_the_last_ten_seconds_twice(controller: Controller) -> None:
    put(controller.journal, 10)
    hooks = [controller.start("acquire", str(job_id), "ibm_fez") for job_id in (7, 8)]
    answers = sorted(hook.stdout.read() for hook in hooks if hook.stdout is not None)
    assert answers[0].startswith("BudgetReservedError: Running jobs have reserved what is left"), answers
    assert [session.max_ttl for session in controller.emulator.sessions()] == [10]


@pytest.mark.parametrize("drop", [None, Drop.AFTER])
def test_a_hook_that_is_killed_leaves_nothing_reserved(controller: Controller, drop: Drop | None) -> None:
    put(controller.journal, 10)
    controller.emulator.inject(Fault(method="POST", path="/sessions", drop=drop, delay=0 if drop else 30))
    controller.emulator.inject(Fault(path="/workloads", delay=30))
    hook = controller.start("acquire", "7", "ibm_fez")
    made = 0 if drop is None else 1
    controller.emulator.wait_for(
        lambda emulator: len(emulator.sessions()) == made and bool(controller.journal.leases())
    )
    hook.kill()
    hook.wait()
    controller.emulator.clear_faults()
    # Nobody knows yet whether there is a session, so it is reserved.
    assert only(controller.config, controller.journal).left == 0
    answer(controller.start("release", "7"))
    balance = only(controller.config, controller.journal)
    assert (balance.used, balance.reserved) == (0, 0)


# Behind the gateway.


@pytest.fixture
def emulator_of_class() -> Iterator[Emulator]:
    with Emulator(result_bytes=200, task_seconds=3) as emulator:
        yield emulator


@pytest.fixture
def class_site(emulator_of_class: Emulator) -> Iterator[Site]:
    with Site(emulator_of_class) as site:
        put(site.journal, 2, ALL, str(USER))
        yield site.start()


def refusal(refused: requests.Response) -> tuple[int, int, str]:
    first = refused.json()["errors"][0]
    return refused.status_code, first["code"], first["message"]


def test_the_running_task_ends_and_no_other_begins(class_site: Site, emulator_of_class: Emulator) -> None:
    with class_site.job(class_site.acquire()) as job:
        assert [session.max_ttl for session in emulator_of_class.sessions()] == [2]
        first, queued = job.submit(), job.submit()
        emulator_of_class.wait_for(
            lambda emulator: {task.status for task in emulator.tasks()} == {"Completed", "Failed"}
        )
        assert job.get(f"/jobs/{first}")["status"] == "Completed"
        assert job.get(f"/jobs/{queued}")["status"] == "Failed"
        for named in ({}, {"session_id": None}):
            body = {name: value for name, value in job.submission(**named).items() if value is not None}
            status, code, message = refusal(job.send("POST", "/jobs", json=body))
            assert (status, code) == (403, 9403)
            assert message.startswith("The budget of user ")
            assert "is used up: 3" in message
            assert " s of 2 s this month. It begins again on " in message
        status, code, _ = refusal(job.send("POST", "/sessions", json={"backend": "ibm_fez"}))
        assert (status, code) == (403, 9403)
        assert len(emulator_of_class.sessions()) == 1
    assert class_site.events("task refused")
    text = requests.get(f"{class_site.url}/metrics", timeout=SECONDS).text
    assert 'qpu_slurm_budgets{state="spent"} 1.0' in text


@pytest.fixture
def job(site: Site) -> Iterator[Job]:
    """Return a job whose user's budget another job has just used up."""
    user_id = next(USERS)
    put(site.journal, 60, ALL, str(user_id))
    with site.job(site.acquire(user_id=user_id)) as job:
        yield job
    for balance in Budgets(site.config, site.journal).all():
        site.journal.budgets.remove(balance.budget.scope, balance.budget.period, by=0, reason="a test")


def overspend(job: Job) -> None:
    journal, session_id = job.site.journal, job.session_id
    journal.history.account(session_id, locked=60, executed=1, tasks=[])


def test_ibms_own_client_says_that_the_budget_is_used_up(job: Job, emulator: Emulator) -> None:
    overspend(job)
    done = program(
        job,
        """
        from qiskit import QuantumCircuit, generate_preset_pass_manager
        from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2

        backend = QiskitRuntimeService().backend("ibm_fez")
        circuit = QuantumCircuit(1)
        circuit.measure_all()
        isa = generate_preset_pass_manager(optimization_level=1, backend=backend).run(circuit)
        SamplerV2(backend).run([isa])
        """,
    )
    assert done.returncode == 1
    assert "is used up: 60 s of 60 s this month. It begins again on " in done.stderr
    assert "Ask the admin of the cluster for more." in done.stderr
    assert emulator.tasks() == []


def test_task_runner_has_an_exit_code_for_it(job: Job, emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(sampler_input())
    overspend(job)
    done = run(job, TASK_RUNNER, "ibm_fez", "in.json", "out.json", "--json", "summary.json", cwd=tmp_path)
    assert done.returncode == 8, done.stderr
    assert "is used up: 60 s of 60 s this month" in done.stderr
    assert '"exit_reason":"over_budget"' in (tmp_path / "summary.json").read_text().replace(" ", "")
    assert emulator.tasks() == []


def test_users_see_their_own_budgets(site: Site, job: Job) -> None:
    put(site.journal, 100, "physics")
    hooks = site.hooks()
    # Root asks here: the gateway answers who asks, whoever is named.
    assert hooks.budgets(job.lease.user_id) == ()
    put(site.journal, 50, ALL, str(os.geteuid()))
    (balance,) = hooks.budgets(job.lease.user_id)
    assert (balance.scope.user, balance.total, balance.used) == (str(os.geteuid()), 50, 0)
    assert job.lease.user_id != os.geteuid()


def test_the_commands_of_an_admin(site: Site) -> None:
    def budget(*argv: str, code: int = 0) -> str:
        done = command(site, *argv)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    assert budget(
        "set", "--account", "class", "--each", "user", "--limit", "60s", "--period", "day", "--reason", "w"
    ) == ("The budget of each user of account class per day: 60 s.\n")
    assert budget("grant", "30s", "--account", "Class", "--user", "root", "--reason", "a deadline") == (
        "user root of account class: 90 s left; used 0 s of 90 s today\n"
    )
    budget("set", "--qpu", "torino", "--limit", "10h", "--until", "2999-12-31", "--reason", "p")
    assert [line.split()[:2] for line in budget("list").splitlines()[1:]] == [["QPU", "torino"]]
    (row,) = json.loads(budget("list", "--json", "--qpu", "torino"))
    # Other tests have used the QPU: in a project without a first day, that counts.
    assert row["left"] == pytest.approx(36000 - row["used"] - row["reserved"])
    text = budget("history")
    assert [what in text for what in ("granted", "a deadline", "set")] == [True] * 3
    assert "removed" in budget("remove", "--qpu", "torino", "--reason", "p")
    for argv, sentence in (
        (
            ("set", "--limit", "1", "--from", "2026-02-02", "--until", "2026-01-01"),
            "ends (2026-01-01) before it begins",
        ),
        (("set", "--limit", "1", "--qpu", "ibm_fes"), "there is no QPU 'ibm_fes' here"),
        (("set", "--cost", "1"), "cost needs the price of a second on ibm_fez"),
        (("set", "--limit", "1", "--user", "nobody-at-all"), "There is no user 'nobody-at-all'"),
        (("grant", "1h", "--account", "physics"), "There is no such budget of account physics"),
        (("grant", "soon", "--account", "class", "--user", "root"), "'soon' is no duration"),
        (("remove", "--account", "physics"), "has made no budget of account physics"),
    ):
        assert sentence in budget(*argv, "--reason", "x", code=1)
    assert "No budget limits your use of QPUs." in budget()
    budget("remove", "--account", "class", "--each", "user", "--reason", "over")


def command(site: Site, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "--config", site.path, "budget", *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
