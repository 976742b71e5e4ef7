# SPDX-License-Identifier: Apache-2.0
"""The gateway as a process: started, supervised, killed, started again."""

from __future__ import annotations

import os
import pwd
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from contextlib import nullcontext as does_not_raise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import requests
from msgspec import structs

from qpu_slurm import config
from qpu_slurm.errors import JournalError, RequestError, UnavailableError
from qpu_slurm.journal.model import LeaseState
from qpu_slurm_devkit.activation import activated
from qpu_slurm_devkit.emulator import Account, Drop, Emulator, Fault
from tests.integration.gateway_site import PROGRAM, SECONDS, Site
from tests.integration.steps import TASK_RUNNER, sampler_input

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qpu_slurm.journal.model import LeaseRequest


@pytest.fixture
def own(emulator: Emulator) -> Iterator[Site]:
    """Return a host whose gateway is not started yet."""
    with Site(emulator) as site:
        yield site


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# Killed.


@pytest.mark.parametrize("opened", [False, True])
def test_it_is_killed_while_a_session_is_opened(emulator: Emulator, *, opened: bool) -> None:
    """Before the service has opened it, or after, with the answer on its way: there is one in the end."""
    fault = Fault(method="POST", path="/sessions", drop=Drop.AFTER if opened else Drop.BEFORE, times=100)
    with Site(emulator, acquire_timeout=30) as site:
        emulator.inject(fault)
        # As its answer is lost, the broker looks for the session: this is where it dies.
        emulator.inject(Fault(method="GET", path="/workloads", delay=3, times=100))
        site.start()
        request = site.request("ibm_fez", job_id=70)
        asked = threading.Thread(target=lambda: away(site, request))
        asked.start()
        wait_until(lambda: any(request.path == "/sessions" for request in emulator.requests()))
        site.kill()
        asked.join()
        assert [lease.state for lease in site.journal.leases(job_id=70)] == ["acquiring"]
        assert len(emulator.sessions()) == opened
        emulator.clear_faults()
        site.start()
        (lease,) = site.hooks().acquire(request)
        assert [session.id for session in emulator.sessions()] == [lease.session_id]
        (ended,) = site.hooks().release(70, "Done.")
        assert ended.state is LeaseState.RELEASED
        assert [session.state for session in emulator.sessions()] == ["closed"]


def away(site: Site, request: LeaseRequest) -> None:
    with pytest.raises(UnavailableError):
        site.hooks().acquire(request)


def test_a_job_that_was_running_carries_on_after_a_restart(tmp_path: Path) -> None:
    with Emulator(task_seconds=3) as emulator, Site(emulator) as site:
        site.start()
        (tmp_path / "in.json").write_text(sampler_input())
        with site.job(site.acquire()) as job:
            task = job.submit()
            runner = subprocess.Popen(
                [TASK_RUNNER, "ibm_fez", "in.json", "out.json"],
                env=job.environ,
                cwd=tmp_path,
                stderr=subprocess.PIPE,
                text=True,
            )
            emulator.wait_for(lambda emulator: len(emulator.tasks()) > 1)
            site.kill()
            time.sleep(1)
            site.start()
            # Neither the key nor the token that it got before have to be asked for again.
            assert job.get(f"/jobs/{task}")["id"] == task
            _, said = runner.communicate(timeout=SECONDS)
        assert (runner.returncode, (tmp_path / "out.json").exists()) == (0, True), said


def test_a_release_that_could_not_be_done_is_done_by_the_reaper(emulator: Emulator) -> None:
    with Site(emulator, gateway='reap_every = "1s"') as site:
        lease = site.acquire()
        emulator.inject(
            Fault(method="DELETE", path=f"/sessions/{lease.session_id}/close", status=503, times=1000)
        )
        (ended,) = site.broker.release(lease.job_id, "Done.")
        assert ended.state is LeaseState.RELEASING
        emulator.clear_faults()
        site.start()
        wait_until(lambda: site.journal.lease(lease.id).state is LeaseState.RELEASED)
        assert [session.state for session in emulator.sessions()] == ["closed"]
        metrics = requests.get(f"{site.url}/metrics", timeout=SECONDS).text
        assert 'qpu_slurm_reaped_leases_total{qpu="ibm_fez"} 1.0' in metrics


def test_a_journal_that_is_damaged_while_it_runs_ends_nothing(own: Site, emulator: Emulator) -> None:
    own.start()
    hooks, request = own.hooks(), own.request("torino")
    (lease,) = hooks.acquire(own.request("ibm_fez"))
    with own.job(lease) as job:
        files = [path for path in own.config.journal.parent.glob("*.sqlite*") if path.suffix != ".secret"]
        good = {path: path.read_bytes() for path in files}
        for path in files:
            with path.open("r+b") as file:
                file.write(os.urandom(len(good[path])))

        for ask in (
            lambda: hooks.keys(lease.job_id),
            lambda: hooks.acquire(request),
            lambda: hooks.release(lease.job_id, "Done."),
        ):
            with pytest.raises(JournalError, match="is damaged"):
                ask()
        assert job.send("GET", "/backends").status_code == 503
        assert requests.get(f"{own.url}/healthz", timeout=SECONDS).status_code == 503
        # It is of no use, and a restart would not help: it is alive.
        assert requests.get(f"{own.url}/healthz/live", timeout=SECONDS).json() == {"status": "alive"}
        assert [(session.backend, session.state) for session in emulator.sessions()] == [("ibm_fez", "open")]

        # Whoever has a copy of the journal loses nothing.
        own.kill()
        for path, content in good.items():
            path.write_bytes(content)
        own.start()
        job.submit()
        (ended,) = own.hooks().release(lease.job_id, "Done.")
    assert ended.state is LeaseState.RELEASED
    assert [session.state for session in emulator.sessions()] == ["closed"]


def test_it_does_not_outlive_who_started_it(own: Site) -> None:
    own.start()
    assert own.process is not None
    assert own.process.stdin is not None
    own.process.stdin.close()
    assert own.process.wait(SECONDS) == 0


# Stopped.


def test_requests_that_are_under_way_are_finished_when_it_stops(own: Site, emulator: Emulator) -> None:
    own.start()
    with own.job(own.acquire()) as job:
        emulator.inject(Fault(method="GET", path="/backends", delay=1))
        statuses: list[int] = []
        asked = threading.Thread(target=lambda: statuses.append(job.send("GET", "/backends").status_code))
        asked.start()
        time.sleep(0.3)
        assert own.stop() == 0
        asked.join()
    assert statuses == [200]
    assert own.events("gateway stops")


# Supervised.


def test_systemd_is_told_how_it_is(own: Site) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        address = own.directory / "notify"
        supervisor.bind(str(address))
        supervisor.settimeout(SECONDS)
        own.start({"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "300000"})
        told: list[str] = []
        while told.count("WATCHDOG=1") < 3:
            told.append(supervisor.recv(1000).decode())
        assert f"READY=1\nSTATUS=Listens on {own.url}" in told
        own.stop()
        while not any(text.startswith("STOPPING=1\n") for text in told):
            told.append(supervisor.recv(1000).decode())


def test_health_and_metrics(own: Site, emulator: Emulator) -> None:
    own.start()
    health = requests.get(f"{own.url}/healthz", timeout=SECONDS).json()
    assert (health["status"], health.keys()) == ("ok", {"status", "configuration"})
    hooks, request = own.hooks(), own.request("ibm_fez")
    (lease,) = hooks.acquire(request)
    with own.job(lease) as job:
        job.submit()
        emulator.wait_for(lambda emulator: emulator.tasks()[0].done_at)
    assert metric(own, 'qpu_slurm_leases{qpu="ibm_fez",state="held"}') == 1
    hooks.release(request.job_id, "Done.")
    assert metric(own, 'qpu_slurm_leases{qpu="ibm_fez",state="held"}') == 0
    assert metric(own, 'qpu_slurm_tasks_total{qpu="ibm_fez"}') == 1
    wait_until(lambda: metric(own, 'qpu_slurm_locked_seconds_total{qpu="ibm_fez"}') > 0)
    locked, executed, idle = (
        metric(own, f'qpu_slurm_{name}_seconds_total{{qpu="ibm_fez"}}') for name in ("locked", "qpu", "idle")
    )
    assert executed > 0
    assert idle == pytest.approx(locked - executed)


def metric(site: Site, name: str) -> float:
    certificate = site.directory / "cert.pem"
    trust = str(certificate) if certificate.exists() else True
    text = requests.get(f"{site.url}/metrics", verify=trust, timeout=SECONDS).text
    for line in text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"there is no {name}")


def test_a_gateway_is_ready_and_alive_without_its_service(own: Site, emulator: Emulator) -> None:
    """Hooks get an answer from it all the same: another gateway could do no more."""
    own.start()
    emulator.inject(Fault(path="*", status=503, times=1000))
    assert metric(own, 'qpu_slurm_leases{qpu="ibm_fez",state="held"}') == 0
    for path in ("/healthz", "/healthz/live"):
        assert requests.get(own.url + path, timeout=SECONDS).ok


def test_no_log_holds_a_key_at_any_level(own: Site, emulator: Emulator) -> None:
    own.start()
    (lease,) = own.hooks().acquire(own.request("ibm_fez"))
    emulator.inject(Fault(method="GET", path="/backends", status=401))
    with own.job(lease) as job:
        job.get("/backends")
        job.submit()
        token = job.token.split()[1]
    own.stop()
    assert "debug" in own.log()
    for secret in (own.account.api_key, own.key(lease), token, "eyJ", "MUNGE:"):
        assert secret not in own.log()


def test_its_secret_is_for_nobody_else(own: Site) -> None:
    own.start()
    for path in (own.directory / "journal").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    assert own.stop() == 0
    secret = own.config.journal.with_name("journal.sqlite.secret")
    secret.chmod(0o644)
    done = command(own)
    assert (done.returncode, "others can read" in done.stderr) == (1, True)
    secret.chmod(0o600)
    secret.write_bytes(b"short")
    assert "is damaged" in command(own).stderr


# TLS, and what it does not start with.


def test_it_speaks_tls_and_reads_a_renewed_certificate(own: Site) -> None:
    certificate, key = own.directory / "cert.pem", own.directory / "key.pem"
    speak_tls(own, certificate, key)
    own.start()
    assert own.url.startswith("https://")
    (lease,) = own.hooks().acquire(own.request("ibm_fez"))
    assert list(own.hooks().keys(lease.job_id)) == ["ibm_fez"]
    ends = metric(own, "qpu_slurm_certificate_end_timestamp_seconds")
    assert ends == pytest.approx(time.time() + 86_400, abs=600)
    time.sleep(1.1)  # certificates end at whole seconds
    renew(certificate, key)
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{own.url}/healthz", verify=str(certificate), timeout=SECONDS)
    own.hang_up()
    wait_until(lambda: own.events("reloaded"))
    assert requests.get(f"{own.url}/healthz", verify=str(certificate), timeout=SECONDS).ok
    assert metric(own, "qpu_slurm_certificate_end_timestamp_seconds") > ends


def test_a_certificates_key_that_others_can_read_is_refused(own: Site) -> None:
    certificate, key = own.directory / "cert.pem", own.directory / "key.pem"
    speak_tls(own, certificate, key)
    key.chmod(0o644)
    done = command(own)
    assert done.returncode == 1
    assert f"{key}: others can read this credential. Run `chmod 600 {key}`." in done.stderr
    # Nor is it taken when a certificate is renewed.
    key.chmod(0o600)
    own.start()
    key.chmod(0o640)
    own.hang_up()
    wait_until(lambda: own.events("reload failed"))
    assert requests.get(f"{own.url}/healthz", verify=str(certificate), timeout=SECONDS).ok


@pytest.mark.parametrize(
    ("version", "taken"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)],
)
def test_tls_1_2_is_the_least(own: Site, version: ssl.TLSVersion, *, taken: bool) -> None:
    """Whatever the machine's OpenSSL would take."""
    lenient = own.directory / "openssl.cnf"
    lenient.write_text(LENIENT)
    speak_tls(own, own.directory / "cert.pem", own.directory / "key.pem")
    own.start({"OPENSSL_CONF": str(lenient)})
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(own.directory / "cert.pem")
    client.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that 1.1 is old is the point
        client.minimum_version = client.maximum_version = version
    address = own.url.removeprefix("https://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=SECONDS) as plain:
        expected = does_not_raise() if taken else pytest.raises(ssl.SSLError)
        with expected, client.wrap_socket(plain, server_hostname="127.0.0.1") as tls:
            assert tls.version() == version.name.replace("_", ".")


LENIENT = """\
openssl_conf = openssl_init
[openssl_init]
ssl_conf = ssl
[ssl]
system_default = lenient
[lenient]
MinProtocol = TLSv1
CipherString = ALL:@SECLEVEL=0
"""


def test_a_crash_leaves_no_image_of_its_memory(own: Site) -> None:
    """What it has in memory are the service's keys."""
    own.start()
    assert own.process is not None
    limits = Path(f"/proc/{own.process.pid}/limits").read_text().splitlines()
    (core,) = (line.split() for line in limits if line.startswith("Max core file size"))
    assert core[4:6] == ["0", "0"]


def test_a_process_that_holds_keys_cannot_be_dumped() -> None:
    script = (
        "import ctypes; from qpu_slurm.gateway.command import forbid_dumps; forbid_dumps();"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout == "0\n"


def speak_tls(site: Site, certificate: Path, key: Path) -> None:
    """Have a gateway that is not started yet speak TLS."""
    renew(certificate, key)
    lines = f'certificate = "{certificate}"\ncertificate_key = "{key}"\nca = "{certificate}"\n'
    text = site.path.read_text().replace('url = "http://127', 'url = "https://127', 1)
    site.path.write_text(text.replace("[defaults]", f"{lines}[defaults]"))
    site.config = config.load(site.path)


def renew(certificate: Path, key: Path) -> None:
    argv = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=gateway"
    )
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*argv.split(), *files], check=True, capture_output=True, timeout=SECONDS)


def command(site: Site, held: socket.socket | None = None) -> subprocess.CompletedProcess[str]:
    """Run a gateway that does not start."""
    argv, inherited = activated([str(PROGRAM), "--config", str(site.path), "gateway"], held)
    return subprocess.run(
        argv,
        pass_fds=inherited,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('listen = "127.0.0.1:', 'listen = "0.0.0.0:', "keys would be sent unencrypted"),
        ('listen = "127.0.0.1:', 'listen = "192.0.2.1:', "keys would be sent unencrypted"),
        (
            "[gateway]",
            '[gateway]\ncertificate = "/none"\ncertificate_key = "/none"',
            "/none: cannot be read (No such",
        ),
    ],
)
def test_it_does_not_start_with_what_is_not_safe_or_not_there(
    own: Site, old: str, new: str, why: str
) -> None:
    own.path.write_text(own.path.read_text().replace(old, new))
    done = command(own)
    assert (done.returncode, why in done.stderr) == (1, True), done.stderr


def test_it_says_that_its_address_is_taken(own: Site) -> None:
    assert own.config.gateway is not None
    host, port = own.config.gateway.listen.split(":")
    with socket.create_server((host, int(port))):
        done = command(own)
    assert (done.returncode, "[gateway] listen" in done.stderr) == (1, True)


# Told to read everything again.


def reload(site: Site, event: str = "reloaded") -> dict[str, Any]:
    before = len(site.events(event))
    site.hang_up()
    wait_until(lambda: len(site.events(event)) > before)
    return site.events(event)[-1]


def test_a_qpu_that_is_added_needs_no_restart(own: Site) -> None:
    text = own.path.read_text()
    own.path.write_text(text.replace('[[qpu]]\nname = "torino"\nbackend = "ibm_torino"\n', ""))
    own.start()
    hooks, request = own.hooks(), own.request("torino")
    with pytest.raises(RequestError, match="There is no QPU 'torino' here"):
        hooks.acquire(request)
    own.path.write_text(text)
    assert reload(own)["qpus"] == ["ibm_fez", "torino", "own"]
    (lease,) = hooks.acquire(request)
    with own.job(lease) as job:
        job.submit()
    assert metric(own, 'qpu_slurm_leases{qpu="torino",state="held"}') == 1
    assert metric(own, "qpu_slurm_config_reload_successful") == 1


def test_jobs_that_run_do_not_notice_a_reload(own: Site) -> None:
    own.start()
    with own.job(own.acquire()) as job:
        task = job.submit()
        reload(own)
        assert job.get(f"/jobs/{task}")["id"] == task


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("[[qpu]]", "[[qpu", "is not TOML"),
        ('name = "ibm_fez"', 'name = "ibm_fez"\nholds = 1', "unknown key 'holds'"),
        ('listen = "127.0.0.1:', 'listen = "127.0.0.2:', "[gateway] listen cannot change while"),
        ("journal/journal.sqlite", "journal/another.sqlite", "journal cannot change while"),
        ('[[qpu]]\nname = "ibm_fez"\n', "", "ibm_fez was removed, but is still in use by 1 job, such as 70"),
        ("[gateway]", '[gateway]\ntrusted_users = ["no-such-user"]', "there is no user 'no-such-user'"),
    ],
)
def test_what_cannot_be_used_changes_nothing(own: Site, old: str, new: str, why: str) -> None:
    own.start()
    (lease,) = own.hooks().acquire(own.request("ibm_fez", job_id=70))
    text = own.path.read_text()
    assert old in text
    own.path.write_text(text.replace(old, new))
    assert why in reload(own, "reload failed")["why"]
    assert metric(own, "qpu_slurm_config_reload_successful") == 0
    with own.job(lease) as job:
        job.submit()
    own.path.write_text(text)
    reload(own)
    assert metric(own, "qpu_slurm_config_reload_successful") == 1


def test_a_rotated_api_key_is_used_at_once() -> None:
    """And not only when the service refuses the old one, which is good for some time yet."""
    old = Account.premium()
    new = structs.replace(old, name="rotated", api_key="another-key-of-the-same-instance")
    with Emulator(accounts=(old, new)) as emulator, Site(emulator) as site:
        site.start()
        (lease,) = site.hooks().acquire(site.request("ibm_fez"))

        def used_by(path: str) -> str:
            return [request.account for request in emulator.requests() if request.path.startswith(path)][-1]

        with site.job(lease) as job:
            job.submit()
            assert used_by("/jobs") == old.name
            (site.directory / "ibm.key").write_text(new.api_key)
            job.submit()
            assert used_by("/jobs") == old.name
            reload(site)
            job.submit()
            assert used_by("/jobs") == new.name
        site.hooks().release(lease.job_id, "Done.")
        assert used_by("/sessions") == new.name


def test_the_secret_of_job_keys_is_rotated_while_jobs_run(own: Site) -> None:
    own.start()
    (lease,) = own.hooks().acquire(own.request("ibm_fez"))
    with own.job(lease) as job:
        before = own.hooks().keys(lease.job_id)["ibm_fez"].key.reveal()
        assert admin(own, "rekey").returncode == 0
        reload(own)
        job.submit()  # with the token and the key that it had
        after = own.hooks().keys(lease.job_id)["ibm_fez"].key.reveal()
        assert after != before
        # Once more, and its steps would lose their access: not without saying so.
        refused = admin(own, "rekey")
        assert (refused.returncode, f"such as {lease.job_id}" in refused.stderr) == (1, True)
        assert admin(own, "rekey", "--forget-old").returncode == 0
        reload(own)
        assert job.send("GET", "/backends").status_code == 401
        assert own.events("secret rotated")[-1]["forget_old"] is True


def test_a_log_that_was_rotated_is_let_go_of(own: Site) -> None:
    own.start()
    log = own.directory / "gateway.log"
    # Whatever is wrong with the configuration.
    own.path.write_text("?")
    log.rename(own.directory / "gateway.log.1")
    own.hang_up()
    wait_until(lambda: own.events("reload failed"))
    assert own.process is not None
    files = [str(path.readlink()) for path in Path(f"/proc/{own.process.pid}/fd").iterdir()]
    assert (str(log) in files, f"{log}.1" in files) == (True, False)


# One user's access, and what an auditor reads.


def admin(site: Site, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "--config", site.path, *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_one_users_access_is_ended_at_once(own: Site, emulator: Emulator) -> None:
    own.start()
    hooks = own.hooks()
    (lease,) = hooks.acquire(own.request("ibm_fez", user_id=4711))
    (other,) = hooks.acquire(own.request("torino", user_id=4712))
    with own.job(lease) as job, own.job(other) as others:
        done = admin(own, "block", "4711", "--reason", "the account is under investigation", SUDO_UID="1")
        assert (done.returncode, "is blocked: 1 lease ended." in done.stdout) == (0, True), done
        # At once: the key, the token, the session, and whatever is asked for next.
        assert job.send("GET", "/backends").status_code == 401
        states = {session.id: session.state for session in emulator.sessions()}
        assert states[lease.session_id or ""] == "closed"
        with pytest.raises(RequestError, match="the account is under investigation"):
            hooks.acquire(own.request("ibm_fez", user_id=4711))
        others.submit()
    assert "4711" in admin(own, "block").stdout
    assert admin(own, "unblock", "4711").returncode == 0
    hooks.acquire(own.request("ibm_fez", user_id=4711))
    assert own.events("user blocked")[0]["by"] == pwd.getpwuid(1).pw_name


def test_a_user_who_was_blocked_opens_no_session_with_a_lease_that_was_granted(own: Site) -> None:
    lease = own.later("ibm_fez", user_id=4711)
    own.journal.blocked_users.add(4711, "no", 0)
    with pytest.raises(RequestError, match="may not use QPUs"):
        own.broker.open_session(lease.id)


def test_each_submission_is_in_the_audit(own: Site) -> None:
    own.path.write_text(own.path.read_text().replace('log_level = "debug"', 'log_level = "error"'))
    own.start()
    request = structs.replace(own.request("ibm_fez", user_id=0), account="physics")
    (lease,) = own.hooks().acquire(request)
    with own.job(lease) as job:
        task = job.submit()
        body = len(msgspec.json.encode(job.submission()))
        assert job.send("POST", "/jobs", json=job.submission(session_id="another")).status_code == 403
        assert (
            job.send("POST", "/jobs", json=job.submission(), headers={"Authorization": "x"}).status_code
            == 401
        )
    own.hooks().release(lease.job_id, "Done.")
    own.stop()
    (told,) = own.events("task submitted")
    whose = {"user_id": 0, "user": "root", "account": "physics", "job_id": lease.job_id, "lease": lease.id}
    what = {
        "qpu": "ibm_fez",
        "task": task,
        "session_id": lease.session_id,
        "audit": True,
        "peer": "127.0.0.1",
    }
    assert told.items() >= {**whose, **what}.items()
    assert told["bytes"] in range(body, 2 * body)
    (refused,) = own.events("task refused")
    assert refused.items() >= {**whose, "task": "", "status": 403}.items()
    assert "may not submit to another" in refused["why"]
    (unknown,) = own.events("refused")
    assert (unknown["status"], unknown["level"], unknown["peer"]) == (401, "warning", "127.0.0.1")
    assert (
        own.events("lease granted")[0].items()
        >= {"job_id": lease.job_id, "account": "physics", "session_id": lease.session_id}.items()
    )
    assert own.events("lease ended")[0].items() >= {"lease": lease.id, "why": "Done."}.items()


def test_leases_show_whether_a_session_is_idle() -> None:
    with Emulator(task_seconds=30) as emulator, Site(emulator) as site:

        def use() -> tuple[str | None, str]:
            listed = msgspec.json.decode(admin(site, "leases", "--json").stdout)
            table = admin(site, "leases").stdout.splitlines()[1].split()
            return listed[0]["use"], table[4]

        lease = site.acquire()
        assert use() == ("idle", "idle")
        site.start()
        with site.job(lease) as job:
            job.submit()
        assert use() == ("busy", "busy")
        emulator.advance(31)
        emulator.wait_for(lambda emulator: emulator.tasks()[0].done_at)
        # The session waits for the next task, and keeps the QPU.
        assert use() == ("locked", "locked")
        assert msgspec.json.decode(admin(site, "leases", "--json", "--offline").stdout)[0]["use"] is None
        (site.directory / "ibm.key").unlink()
        assert use() == (None, "?")


def test_drain_records_the_person(own: Site) -> None:
    daemon = pwd.getpwuid(1).pw_name
    for environ in ({"SUDO_UID": "1", "SUDO_USER": daemon}, {"SUDO_UID": "", "SUDO_USER": daemon}):
        admin(own, "drain", "ibm_fez", "--reason", "repair", **environ)
        assert own.journal.closings.all()["ibm_fez"].user_id == 1
        admin(own, "resume", "ibm_fez", **environ)
    lease = own.acquire()
    own.start()
    admin(own, "release", str(lease.job_id), SUDO_UID="1")
    assert own.journal.lease(lease.id).reason == f"Released by hand, by {daemon}."
