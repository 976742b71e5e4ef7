# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm check` beside a real gateway: MUNGE, TLS, an emulated service; and the guide's own authority."""

from __future__ import annotations

import http.server
import json
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from qpu_slurm import config
from qpu_slurm.admin.check import Level, _gateway
from qpu_slurm.slurm.admin_comment import AdminComment
from tests.integration.gateway_site import ON_PREMISES, PROGRAM, SECONDS, USER, Job, Site
from tests.integration.squeue import Squeue
from tests.integration.steps import TASK_RUNNER, sampler_input

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.admin.check import Finding
    from qpu_slurm_devkit.emulator import Emulator

DOCS = Path(__file__).parents[2] / "docs"

Found = dict[str, str]

VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
ENVIRON = {name: value for name, value in os.environ.items() if name not in VARIABLES}


@pytest.fixture
def own(emulator: Emulator) -> Iterator[Site]:
    """Return a host whose gateway is not started yet."""
    with Site(emulator) as site:
        yield site


def check(site: Site, *options: str, **environ: str) -> list[Found]:
    """Return what is found wrong on the way to gateway and service; this host has no Slurm."""
    done = subprocess.run(
        [PROGRAM, "--config", site.path, "check", "--json", *options],
        env=ENVIRON | environ,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.stderr == ""
    printed = json.loads(done.stdout)
    found: list[Found] = printed["findings"] if options else printed
    slurm = {"no commands", "plugin not named"}
    return [finding for finding in found if finding["level"] != "ok" and finding["diagnosis"] not in slurm]


def only(found: list[Found]) -> Found:
    [finding] = found
    return finding


@pytest.mark.parametrize(
    ("limit", "about"),
    [("", ["ibm_torino"]), ("max_leases = 6", ["ibm_torino"]), ("max_leases = 5", [])],
)
def test_more_jobs_than_the_qpu_has_lanes(emulator: Emulator, limit: str, about: list[str]) -> None:
    with Site(emulator, qpus=f"{ON_PREMISES}{limit}\n") as site:
        site.start()
        found = [finding for finding in check(site) if finding["diagnosis"] == "more leases than slots"]
    assert [finding["about"] for finding in found] == about
    assert all("Set `max_leases` to 5 or less." in finding["remedy"] for finding in found)


class Authority:
    """An authority made by the guide's recipe, and a certificate for the gateway.

    Args:
        directory: Where they are made.
        days: How long the certificate is good for.
        name: What it names.
        key_usage: Whether the recipe's keyUsage is kept.
    """

    def __init__(
        self, directory: Path, *, days: int = 365, name: str = "IP:127.0.0.1", key_usage: bool = True
    ) -> None:
        directory.mkdir()
        guide = (DOCS / "install.md").read_text()
        # What makes the files, without where they are installed.
        [script] = re.findall(r"^cat >openssl\.cnf .*?(?=^install )", guide, re.DOTALL | re.MULTILINE)
        script = f"umask 077\n{script}chmod 644 ca.pem gateway.pem\n"
        script = script.replace("DNS:controller", name).replace("-days 365 ", f"-days {days} ")
        if not key_usage:
            script = re.sub(r"(?m)^keyUsage = .*\n", "", script)
        subprocess.run(
            ["/bin/sh", "-euc", script], cwd=directory, check=True, capture_output=True, timeout=SECONDS
        )
        self.ca, self.certificate = directory / "ca.pem", directory / "gateway.pem"
        self.key = directory / "gateway.key"


def speak_tls(site: Site, authority: Authority, ca: Path | None) -> None:
    """Have a gateway that is not started yet speak TLS."""
    lines = f'certificate = "{authority.certificate}"\ncertificate_key = "{authority.key}"\n'
    lines += f'ca = "{ca}"\n' if ca else ""
    text = site.path.read_text().replace('url = "http://127', 'url = "https://127', 1)
    site.path.write_text(text.replace("[defaults]", f"{lines}[defaults]"))
    site.config = config.load(site.path)


def rewrite(site: Site, old: str, new: str) -> None:
    text = site.path.read_text()
    assert old in text
    site.path.write_text(text.replace(old, new))


# The gateway.


def test_a_gateway_that_is_well(own: Site) -> None:
    own.start()
    assert check(own) == []
    assert check(own, "--node") == []


OLD = 'name = "torino"\n'
"""What an admin then adds a line to."""


def test_a_gateway_that_runs_with_an_older_configuration(own: Site) -> None:
    own.start()
    rewrite(own, OLD, f"{OLD}exclusive = true\n")
    older = only(check(own))
    assert older["diagnosis"] == "gateway is older"
    assert "systemctl reload qpu-slurm-gateway" in older["remedy"]
    own.hang_up()
    deadline = time.monotonic() + SECONDS
    while not own.events("reloaded"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert check(own) == []


def test_a_gateway_whose_port_nobody_holds_while_it_restarts(own: Site) -> None:
    """It matters under systemd, which would hold it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(own.directory / "notify"))
        environ = {"NOTIFY_SOCKET": str(own.directory / "notify")}
        own.start(environ)
        unheld = only(check(own))
        assert (unheld["level"], unheld["diagnosis"]) == ("warning", "gateway's socket")
        assert "qpu-slurm-gateway.socket" in unheld["remedy"]
        own.stop()
        own.hold()
        own.start(environ)
        assert check(own) == []


def test_another_host_has_to_have_the_same_qpus(own: Site) -> None:
    """It may have other paths. (`here` is not found out: a gateway of the test's is always on this host.)"""
    own.start()
    rewrite(own, "log_level", 'keep = "30d"\nlog_level')
    assert elsewhere(own) == []
    rewrite(own, OLD, f'{OLD}mode = "batch"\n')
    [differs] = elsewhere(own)
    assert (differs.about, differs.diagnosis) == ("configuration", "differs from the gateway")
    assert "Copy the file of the gateway's host" in differs.remedy


def test_a_controller_that_reaches_the_gateway_through_a_tunnel_needs_no_key(own: Site) -> None:
    """The address is this host's, and the gateway that answers has its journal where this host has none."""
    own.start()
    text = own.path.read_text()
    text = re.sub("(?m)^journal = .*$", 'journal = "/nowhere/qpu_slurm/journal.sqlite"', text, count=1)
    own.path.write_text(re.sub("(?m)^key_file = .*$", 'key_file = "/nowhere/ibm.key"', text))
    assert check(own) == []


def elsewhere(site: Site) -> list[Finding]:
    found = _gateway.check(config.load(site.path), here=False)
    return [finding for finding in found if finding.level is not Level.OK]


# What answers in its place.


class Other(http.server.BaseHTTPRequestHandler):
    """Something else that speaks HTTP, or a gateway that says how it is."""

    status, body = 404, b"no"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


class Unwell(Other):
    """A gateway without its journal."""

    status, body = 503, b'{"status":"the journal cannot be read"}'


@pytest.mark.parametrize(
    ("handler", "diagnosis", "says"),
    [(Other, "not a gateway", "HTTP 404"), (Unwell, "gateway unwell", "the journal cannot be read")],
)
def test_what_answers_is_not_a_gateway_that_is_well(
    own: Site, handler: type[Other], diagnosis: str, says: str
) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'url = "http://127.0.0.1:{server.server_port}"'
        own.path.write_text(re.sub("(?m)^url = .*$", url, own.path.read_text(), count=1))
        found = only(check(own))
        server.shutdown()
    assert (found["diagnosis"], says in found["text"]) == (diagnosis, True)


def test_a_gateway_without_tls(own: Site) -> None:
    own.start()
    rewrite(own, 'url = "http://127.0.0.1', 'url = "https://127.0.0.1')
    found = [finding["diagnosis"] for finding in check(own)]
    assert found == ["gateway without TLS"]


def test_a_munge_key_that_is_another_hosts_is_found(own: Site) -> None:
    own.start()
    own.munge.stop()
    down = only(check(own))
    assert (down["diagnosis"], "Start munged" in down["remedy"]) == ("munge", True)


# The service; what is wrong with one key is said once, of both QPUs.

ACCOUNT = "ibm_fez, torino"


def test_a_key_that_is_refused_is_named_once(own: Site) -> None:
    own.start()
    key = own.directory / "ibm.key"
    key.write_text("no-such-key")
    refused = only(check(own))
    assert (refused["about"], refused["diagnosis"]) == (ACCOUNT, "key refused")
    assert str(key) in refused["remedy"]


def test_a_key_of_the_user_that_is_refused(own: Site) -> None:
    own.start()
    refused = only(check(own, QISKIT_IBM_TOKEN="no-such-key"))
    assert (refused["about"], refused["diagnosis"]) == ("own", "user's key refused")


def test_a_wrong_crn_is_named_once(own: Site) -> None:
    rewrite(own, own.account.crn, own.account.crn.replace(":a/", ":a/9"))
    own.start()
    refused = only(check(own))
    assert (refused["about"], "`instance`" in refused["remedy"]) == (ACCOUNT, True), refused


def test_a_qpu_that_the_service_does_not_know(own: Site) -> None:
    rewrite(own, 'name = "torino"\nbackend = "ibm_torino"', 'name = "torino"\nbackend = "ibm_nowhere"')
    own.start()
    unknown = only(check(own))
    assert (unknown["about"], "`backend`" in unknown["remedy"]) == ("torino", True), unknown


# TLS, and an authority of one's own.


def test_the_guides_recipe_is_accepted_by_the_strictest_python(own: Site, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    speak_tls(own, authority, authority.ca)
    own.start()
    assert check(own) == []
    assert authority.key.stat().st_mode & 0o077 == 0
    strict = ssl.create_default_context(cafile=authority.ca)
    strict.verify_flags |= ssl.VERIFY_X509_STRICT  # Python 3.13 sets it by itself
    host, port = own.url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=SECONDS) as plain,
        strict.wrap_socket(plain, server_hostname=host) as secure,
    ):
        assert secure.version()


def test_an_authority_of_the_machine_is_no_false_alarm(own: Site, tmp_path: Path) -> None:
    """Hooks trust what the machine trusts; SSL_CERT_FILE stands for its list."""
    authority = Authority(tmp_path / "authority")
    speak_tls(own, authority, None)
    own.start()
    assert check(own, SSL_CERT_FILE=str(authority.ca)) == []
    assert only(check(own))["diagnosis"] == "authority not trusted"


def test_a_file_of_authorities_that_is_not_there(own: Site, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    speak_tls(own, authority, authority.ca)
    own.start()
    authority.ca.unlink()
    missing = only(check(own))
    assert (missing["diagnosis"], str(authority.ca) in missing["text"]) == ("ca unreadable", True)


class Certificate(NamedTuple):
    """A certificate, what is found of it, and what has to be said."""

    made: dict[str, object]
    diagnosis: str
    says: str
    remedy: str


CERTIFICATES = {
    "expired": Certificate({"days": -1}, "certificate expired", "has expired", "systemctl reload"),
    "expires this week": Certificate({"days": 6}, "", "", ""),
    "of another name": Certificate(
        {"name": "DNS:other.cluster"}, "certificate of another name", "for another name", "names 127.0.0.1"
    ),
}


@pytest.mark.parametrize("name", CERTIFICATES)
def test_a_certificate_with_a_fault(own: Site, tmp_path: Path, name: str) -> None:
    made, diagnosis, says, remedy = CERTIFICATES[name]
    authority = Authority(tmp_path / "authority", **made)  # type: ignore[arg-type] # as the table says
    speak_tls(own, authority, authority.ca)
    own.start()
    if not diagnosis:  # one that lives for a week only has just begun to
        assert check(own) == []
        return
    found = only(check(own))
    assert found["diagnosis"] == diagnosis
    assert says in found["text"]
    assert found["text"].startswith(own.url.removeprefix("https://"))
    assert remedy in found["remedy"]
    # A step's sentence says the same, and does not blame the key.
    refused = task_runner(own, tmp_path, REQUESTS_CA_BUNDLE=str(authority.ca))
    assert says in refused
    assert "key" not in refused


def task_runner(site: Site, directory: Path, **environ: str) -> str:
    """Run one that cannot reach the gateway; return what it says."""
    lease = site.acquire()
    (directory / "in.json").write_text(sampler_input())
    variables = Job.__new__(Job)
    variables.site, variables.lease, variables.temporary = site, lease, directory
    done = subprocess.run(
        [TASK_RUNNER, "ibm_fez", "in.json", "out.json"],
        env={**variables.environ, **environ},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode != 0
    return done.stderr


@pytest.mark.parametrize(
    ("left", "diagnosis"), [(29, "certificate expires soon"), (13, "certificate expires"), (31, "")]
)
def test_a_certificate_is_reported_before_it_expires(left: int, diagnosis: str) -> None:
    day, now = 86_400, time.time()
    certificate = {
        "notBefore": asn1(now - (365 - left) * day),
        "notAfter": asn1(now + left * day + 60),
    }
    found = list(_gateway.expiry(certificate, "controller:8470"))
    assert [finding.diagnosis for finding in found] == ([diagnosis] if diagnosis else [])
    assert all(f"expires in {left} days" in finding.text for finding in found)


def asn1(seconds: float) -> str:
    return time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(seconds))


# Steps.


def test_steps_are_given_the_authority(own: Site) -> None:
    authority = Authority(own.directory / "authority")  # where the job's user can read it
    speak_tls(own, authority, authority.ca)
    owner = USER if os.geteuid() == 0 else os.geteuid()
    own.start()
    lease = own.acquire(user_id=owner)
    comment = AdminComment(sessions={lease.qpu: lease.session_id}).into_comment("")
    Squeue(own.directory).lists(lease.job_id, user_id=owner, admin_comment=comment)
    printed = subprocess.run(
        [PROGRAM, "--config", own.path, "job-env", str(lease.job_id)],
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    ).stdout
    trust = [line for line in printed.splitlines() if line.endswith(f"={authority.ca}")]
    assert trust == [f"{name}={authority.ca}" for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")]
