# SPDX-License-Identifier: Apache-2.0
"""What Slurm's hooks and steps ask of the gateway, and who may: real MUNGE credentials, good and bad."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import msgspec
import pytest
import requests

from qpu_slurm.errors import NotFoundError, RefusedError, RequestError, UnavailableError
from qpu_slurm.gateway import messages
from qpu_slurm.journal.model import LeaseState, Refusal
from qpu_slurm.system import munge
from qpu_slurm_devkit.emulator import Fault
from tests.integration.gateway_site import SECONDS, Munge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpu_slurm_devkit.emulator import Emulator
    from tests.integration.gateway_site import Site

NOBODY = 65534

# Another user's credential can be had only by who can become him.
OTHERS = [NOBODY] if os.geteuid() == 0 else []

AS_ANOTHER = """
import sys
from pathlib import Path
from qpu_slurm.system import munge
print(munge.encode(sys.argv[2].encode(), socket=Path(sys.argv[1])))
"""


def credential(site: Site, method: str, path: str, body: bytes = b"", uid: int | None = None) -> str:
    payload = messages.binding(method, path, body)
    if uid is None:
        return munge.encode(payload, socket=site.munge.socket)
    made = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER, str(site.munge.socket), payload.decode()],
        user=uid,
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
        cwd="/",
    )
    return made.stdout.strip()


def ask(site: Site, method: str, path: str, signed: str, body: bytes = b"") -> requests.Response:
    headers = {"Authorization": f"MUNGE {signed}"} if signed else {}
    return requests.request(method, site.url + path, data=body or None, headers=headers, timeout=SECONDS)


def refusal(answer: requests.Response) -> tuple[int, str, str]:
    error = msgspec.json.decode(answer.content, type=messages.ErrorAnswer)
    return answer.status_code, error.kind, error.error


# What is asked for.


def test_a_hook_acquires_and_releases_through_the_gateway(site: Site, emulator: Emulator) -> None:
    hooks = site.hooks()
    request = site.request("ibm_fez", "torino")
    leases = hooks.acquire(request)
    assert [(lease.qpu, lease.state) for lease in leases] == [("ibm_fez", "held"), ("torino", "held")]
    assert hooks.acquire(request) == leases
    assert list(leases) == site.journal.leases(job_id=request.job_id)
    assert [session.state for session in emulator.sessions()] == ["open", "open"]
    released = hooks.release(request.job_id, "The job ended: 100 % & more?")
    assert {(lease.state, lease.reason) for lease in released} == {
        (LeaseState.RELEASED, "The job ended: 100 % & more?")
    }
    assert [session.state for session in emulator.sessions()] == ["closed", "closed"]
    assert hooks.release(request.job_id, "Again.") == ()


def test_a_hook_has_a_refusal_written_down(site: Site) -> None:
    refusal = Refusal(job_id=902, user_id=1000, qpus=("ibm_fez",), reason="No such plan.", run="17")
    site.hooks().refuse(refusal)
    site.hooks().refuse(refusal)
    [lease] = site.journal.leases(job_id=902, over=True)
    assert (lease.qpu, lease.state, lease.reason, lease.run) == (
        "ibm_fez",
        LeaseState.FAILED,
        "No such plan.",
        "17",
    )


def test_a_step_gets_a_key_for_each_qpu_behind_the_gateway(site: Site) -> None:
    held = site.acquire(job_id=900)
    bound = site.bind("torino", job_id=900)
    site.journal.bind(job_id=900, user_id=1000, qpu="own")
    keys = site.hooks().keys(900)
    assert {name: (own.key.reveal(), own.session_id) for name, own in keys.items()} == {
        "ibm_fez": (site.key(held), held.session_id),
        "torino": (site.key(bound), None),
    }
    site.journal.end(900, "Done.")
    assert site.hooks().keys(900) == {}


def test_a_jobs_history_is_what_the_journal_has(site: Site) -> None:
    lease = site.acquire(job_id=900)
    site.journal.history.step_started(900, "0", "python", lease.created_at)
    site.release(lease)
    past = site.hooks().history(900)
    assert (past.job_id, past.slurm) == (900, None)
    assert past.users == {lease.user_id}
    assert list(past.leases) == site.journal.history.leases(900)
    assert [(step.step, step.name) for step in past.steps] == [("0", "python")]
    with pytest.raises(NotFoundError, match="Neither the journal nor Slurm knows job 901"):
        site.hooks().history(901)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(method="POST", path="/sessions", status=400), RefusedError),
        (Fault(method="POST", path="/sessions", status=503, times=100), UnavailableError),
    ],
)
def test_what_goes_wrong_is_raised_where_it_was_asked(
    site: Site, emulator: Emulator, fault: Fault, error: type[Exception]
) -> None:
    emulator.inject(fault)
    hooks = site.hooks()
    with pytest.raises(error) as raised:
        hooks.acquire(site.request("ibm_fez"))
    emulator.clear_faults()
    assert type(raised.value) is error


def test_a_users_mistake_is_one_there_too(site: Site) -> None:
    with pytest.raises(RequestError, match="There is no QPU 'ibm_oslo' here"):
        site.hooks().acquire(site.request("ibm_oslo"))


# Who may ask.


@pytest.mark.parametrize("uid", OTHERS)
def test_another_user_can_do_nothing(site: Site, emulator: Emulator, uid: int) -> None:
    lease = site.acquire(user_id=1000)
    job = lease.job_id
    body = messages.encode(site.request("ibm_fez", user_id=uid))
    requests_: Sequence[tuple[str, str, bytes, str]] = (
        ("GET", messages.job_keys_path(job), b"", f"Job {job} belongs to another user."),
        ("GET", messages.job_history_path(job), b"", f"Job {job} belongs to another user."),
        ("DELETE", messages.job_leases_path(job, "x"), b"", f"user {uid} may not"),
        ("POST", messages.LEASES_PATH, body, f"user {uid} may not"),
        ("POST", messages.REFUSALS_PATH, b"{}", f"user {uid} may not"),
    )
    for method, path, content, why in requests_:
        answer = ask(site, method, path, credential(site, method, path, content, uid), content)
        status, kind, text = refusal(answer)
        assert (status, kind, why in text) == (403, "RefusedError", True)
    assert site.events("refused")[-1]["user_id"] == uid
    assert [session.state for session in emulator.sessions()] == ["open"]


@pytest.mark.parametrize("uid", OTHERS)
def test_a_jobs_user_gets_his_own_jobs_keys(site: Site, uid: int) -> None:
    lease = site.acquire(user_id=uid)
    path = messages.job_keys_path(lease.job_id)
    answer = ask(site, "GET", path, credential(site, "GET", path, uid=uid))
    assert answer.json() == {"ibm_fez": {"key": site.key(lease), "session_id": lease.session_id}}
    nothing = messages.job_keys_path(99_999)
    assert ask(site, "GET", nothing, credential(site, "GET", nothing, uid=uid)).json() == {}


def test_a_credential_is_good_once(site: Site) -> None:
    path = messages.job_keys_path(site.acquire().job_id)
    signed = credential(site, "GET", path)
    assert ask(site, "GET", path, signed).ok
    status, kind, why = refusal(ask(site, "GET", path, signed))
    assert (status, kind) == (401, "ReplayedError")
    assert "eplayed" in why


def test_a_credential_is_good_for_its_own_request_only(site: Site, emulator: Emulator) -> None:
    path = messages.job_keys_path(site.acquire().job_id)
    release = messages.job_leases_path(7, "x")
    body = messages.encode(site.request("ibm_fez"))
    for made, used, content in (
        (("GET", messages.job_keys_path(1)), ("GET", path), b""),
        (("DELETE", path), ("GET", path), b""),
        (("DELETE", messages.job_leases_path(7, "y")), ("DELETE", release), b""),
        (("POST", messages.LEASES_PATH), ("POST", messages.LEASES_PATH), body),
    ):
        answer = ask(site, *used, credential(site, *made), content)
        assert refusal(answer) == (401, "InvalidError", "The MUNGE credential was made for another request.")
    assert len(emulator.sessions()) == 1


def test_a_credential_that_proves_nothing_is_refused(site: Site) -> None:
    path = messages.job_keys_path(site.acquire().job_id)
    own = credential(site, "GET", path)
    place = len(own) // 2
    tampered = own[:place] + ("A" if own[place] != "A" else "B") + own[place + 1 :]
    stranger = Munge(site.directory / "stranger")
    try:
        foreign = munge.encode(messages.binding("GET", path), socket=stranger.socket)
    finally:
        stranger.stop()
    for signed in ("", "x", "MUNGE:AwQFAAA=:", tampered, foreign, "\xff" * 10):
        status, kind, _ = refusal(ask(site, "GET", path, signed))
        assert (status, kind) == (401, "InvalidError"), signed
    answer = requests.get(site.url + path, headers={"Authorization": "Bearer x"}, timeout=SECONDS)
    assert refusal(answer)[0] == 401
    # What the client makes of it: a mistake of the installation's, not of the job's.
    with pytest.raises(UnavailableError):
        messages.raise_error(answer.status_code, answer.content)
    log = site.log()
    assert own not in log
    assert tampered not in log


def test_a_credential_that_is_too_old_is_refused(site: Site) -> None:
    path = messages.job_keys_path(site.acquire().job_id)
    payload = messages.binding("GET", path).decode()
    made = subprocess.run(
        ["/usr/bin/munge", f"--socket={site.munge.socket}", "--ttl=1", "--string", payload],
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    time.sleep(2.1)
    assert refusal(ask(site, "GET", path, made.stdout.strip()))[:2] == (401, "ExpiredError")


@pytest.mark.parametrize("body", [b"{}", b"[", b"\xff", b'{"job_id": "x"}', b"x" * 100_000])
def test_what_makes_no_sense_is_refused(site: Site, emulator: Emulator, body: bytes) -> None:
    path = messages.LEASES_PATH
    answer = ask(site, "POST", path, credential(site, "POST", path, body), body)
    assert answer.status_code in {400, 413}
    assert refusal(answer)[1] == "RequestError"
    assert emulator.sessions() == []
