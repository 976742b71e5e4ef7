# SPDX-License-Identifier: Apache-2.0
"""Who may use a QPU: asked as a job starts, and again at each session, with the rules of that moment."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from qpu_slurm.config.access import Place
from qpu_slurm.errors import RequestError, UnavailableError
from tests.integration.gateway_site import PROGRAM, SECONDS, USER, Site, program
from tests.integration.squeue import Squeue

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

    from qpu_slurm.journal.model import LeaseRequest
    from qpu_slurm_devkit.emulator import Emulator

PHYSICS = '{ allow = [{ accounts = ["physics"] }], contact = "quantum@centre.example" }'
WHO = "it is for account physics. Ask quantum@centre.example for access."


class Ruled:
    """A gateway whose QPU ibm_fez has rules, and a Slurm that knows the jobs."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.squeue = Squeue(site.directory)
        self._plain = site.path.read_text()

    def write(self, access: str) -> None:
        """Write other rules for ibm_fez."""
        line = f'name = "ibm_fez"\naccess = {access}\n' if access else 'name = "ibm_fez"\n'
        self.site.path.write_text(self._plain.replace('name = "ibm_fez"\n', line))

    def reload(self, access: str) -> None:
        """Have the gateway read other rules."""
        before = len(self.site.events("reloaded"))
        self.write(access)
        self.site.hang_up()
        deadline = time.monotonic() + SECONDS
        while len(self.site.events("reloaded")) == before:
            assert time.monotonic() < deadline, self.site.log()
            time.sleep(0.05)

    def request(self, account: str = "", **fields: object) -> LeaseRequest:
        places = (Place(account, "quantum", ""),)
        return structs.replace(self.site.request("ibm_fez"), places=places, **fields)


@pytest.fixture
def ruled(emulator: Emulator) -> Iterator[Ruled]:
    with Site(emulator) as site:
        yield Ruled(site)
        site.forget()


def refused(answer: requests.Response) -> str:
    assert answer.status_code == 403, answer.text
    message: str = answer.json()["errors"][0]["message"]
    return message


def test_a_job_that_may_not_is_refused_as_it_starts(ruled: Ruled, emulator: Emulator) -> None:
    ruled.write(PHYSICS)
    hooks = ruled.site.start().hooks()
    with pytest.raises(RequestError) as caught:
        hooks.acquire(ruled.request("chemistry"))
    assert str(caught.value) == f"You may not use ibm_fez with account chemistry: {WHO}"
    # Who may not use it learns nothing of it either.
    bind = structs.replace(ruled.request("chemistry"), qpus=(), bind=("ibm_fez",))
    with pytest.raises(RequestError, match="You may not use ibm_fez"):
        hooks.acquire(bind)
    assert emulator.sessions() == []
    assert ruled.site.journal.leases(over=True) == []
    (lease,) = hooks.acquire(ruled.request("physics"))
    hooks.release(lease.job_id, "Done.")
    assert [event["why"] for event in ruled.site.events("lease refused")][:1] == [str(caught.value)]


@pytest.mark.parametrize("request_", ["session", "task", "big task"])
def test_no_session_is_opened_once_the_rules_have_changed(
    ruled: Ruled, emulator: Emulator, request_: str
) -> None:
    site = ruled.site.start()
    lease = site.later()
    ruled.squeue.lists(lease.job_id, user_id=USER, account="chemistry")
    ruled.reload(PHYSICS)
    with site.job(lease) as job:
        if request_ == "session":
            answer = job.send("POST", "/sessions", json={"backend": "ibm_fez"})
        else:
            size = 400_000 if request_ == "big task" else 10
            submission = job.submission({"pubs": [["?"]], "x": "y" * size})
            del submission["session_id"]
            answer = job.send("POST", "/jobs", json=submission)
        assert refused(answer) == f"You may not use ibm_fez with account chemistry: {WHO}"
        assert emulator.sessions() == []
        ruled.squeue.lists(lease.job_id, user_id=USER, account="physics")
        assert job.send("POST", "/sessions", json={"backend": "ibm_fez"}).ok


def test_an_open_session_stays_the_jobs_after_a_reload(ruled: Ruled, emulator: Emulator) -> None:
    site = ruled.site.start()
    lease = site.later()
    ruled.squeue.lists(lease.job_id, user_id=USER, account="chemistry")
    with site.job(lease) as job:
        session = job.send("POST", "/sessions", json={"backend": "ibm_fez"}).json()["id"]
        ruled.reload(PHYSICS)
        job.submit(session_id=session)
        assert job.send("POST", "/sessions", json={"backend": "ibm_fez"}).json()["id"] == session
        emulator.close_session(session)
        assert WHO in refused(job.send("POST", "/sessions", json={"backend": "ibm_fez"}))


def test_rules_of_users_alone_do_not_ask_slurm_where_the_job_runs(ruled: Ruled) -> None:
    ruled.write(f"{{ allow = [{{ users = [{USER}] }}] }}")
    site = ruled.site.start()
    (lease,) = site.hooks().acquire(ruled.request())
    site.journal.part(lease.id, lease.session_id or "", "Closed.")
    # There is no squeue that knows the job.
    with site.job(site.journal.lease(lease.id)) as job:
        assert job.send("POST", "/sessions", json={"backend": "ibm_fez"}).ok


def test_a_slurm_that_does_not_answer_refuses_no_user_for_good(ruled: Ruled) -> None:
    site = ruled.site.start()
    lease = site.later()
    ruled.reload(PHYSICS)
    (site.directory / "squeue").write_text(
        "#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n"
    )
    with site.job(lease) as job:
        answer = job.send("POST", "/sessions", json={"backend": "ibm_fez"})
    assert answer.status_code == 503, answer.text


def test_qiskit_shows_the_sentence(ruled: Ruled) -> None:
    site = ruled.site.start()
    lease = site.later()
    ruled.squeue.lists(lease.job_id, user_id=USER, account="chemistry")
    ruled.reload(PHYSICS)
    with site.job(lease) as job:
        done = program(
            job,
            """
            from qiskit_ibm_runtime import QiskitRuntimeService, Session
            Session(backend=QiskitRuntimeService().backend("ibm_fez"))
            """,
        )
    assert done.returncode != 0
    assert WHO in done.stderr


def test_a_group_that_the_host_does_not_know_is_no_mistake_of_the_user(ruled: Ruled) -> None:
    user = os.getuid()
    ruled.write('{ allow = [{ groups = ["qpu-slurm-has-no-such-group"] }] }')
    hooks = ruled.site.start().hooks()
    with pytest.raises(UnavailableError, match="knows no group 'qpu-slurm-has-no-such-group'"):
        hooks.acquire(ruled.request(user_id=user))


@pytest.mark.parametrize("behind", ["gateway", "nothing"])
def test_a_user_sees_what_he_may_use(ruled: Ruled, behind: str) -> None:
    ruled.write(f'{{ allow = [{{ users = [{os.getuid()}], partitions = ["quantum"] }}] }}')
    site = ruled.site
    if behind == "gateway":
        site.start()
    else:
        text = site.path.read_text()
        table = text[text.index("[gateway]") : text.index("[defaults]")]
        site.path.write_text(text.replace(table, "").replace('"gateway"', '"shared"'))

    def qpus(*options: str) -> str:
        argv = [str(PROGRAM), "--config", str(site.path), "qpus", *options]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = {report["qpu"]: report["access"] for report in json.loads(qpus("--json"))}
    assert found == {"ibm_fez": "in partition quantum", "torino": "yes", "own": "yes"}
    assert "you may use it" in qpus()
    ruled.write("")
    if behind == "gateway":
        ruled.reload("")
        assert "you may use it" not in qpus()
