# SPDX-License-Identifier: Apache-2.0
"""The client in C between Slurm and a gateway: hooks, and what the plugin runs for steps."""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.journal.model import LeaseState
from tests.integration.client import OWNER, Client, make, until
from tests.integration.gateway_site import Site
from tests.integration.squeue import Squeue
from tests.integration.test_gateway_process import renew, speak_tls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qpu_slurm_devkit.emulator import Emulator

NO_PYTHON = "#!/bin/sh\nexit 99\n"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("build")
    make(directory, str(directory / "qpu-slurm-client"))
    return directory


@pytest.fixture
def no_python(tmp_path: Path) -> Path:
    """Return a Python command that must not be needed."""
    path = tmp_path / "no-python"
    path.write_text(NO_PYTHON)
    path.chmod(0o755)
    return path


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Return a directory to install the client into."""
    return prepared(tmp_path)


def prepared(directory: Path) -> Path:
    # The job's user has to reach it.
    if os.geteuid() == 0:
        for parent in (path for path in (directory, *directory.parents) if "pytest" in str(path)):
            parent.chmod(0o755)
    installed = directory / "libexec"
    installed.mkdir()
    return installed


@pytest.fixture
def client(build: Path, site: Site, host: Path, no_python: Path) -> Client:
    return Client(build, site, host, program=no_python)


def states(client: Client) -> list[LeaseState]:
    return [lease.state for lease in client.site.journal.leases(job_id=client.job, over=True)]


def test_a_job_has_a_session_from_its_prolog_to_its_epilog(client: Client, site: Site) -> None:
    assert client.hook("prolog") == 0
    (lease,) = site.journal.leases(job_id=client.job)
    assert (lease.state, lease.user_id, lease.account) == (LeaseState.HELD, OWNER, "")
    until(lambda: str(lease.session_id) in client.told)
    assert f"update JobId={client.job}+0 AdminComment=" in client.told

    Squeue(site.directory).lists()
    assert client.hook("epilog") == 0
    assert states(client) == [LeaseState.RELEASED]


def test_a_job_without_a_qpu_asks_nobody(client: Client, site: Site) -> None:
    before = site.log()
    assert client.hook("prolog", SPANK_QPU_SLURM_QPU="") == 0
    assert client.hook("epilog", SPANK_QPU_SLURM_QPU="") == 0
    assert site.log() == before


def test_a_job_in_a_gres_partition_is_looked_up(client: Client, site: Site) -> None:
    assert client.hook("prolog", SPANK_QPU_SLURM_QPU="", SLURM_JOB_PARTITION="quantum") == 0
    until(
        lambda: any(event["path"].endswith(f"/jobs/{client.job}/start") for event in site.events("request"))
    )
    assert states(client) == []


def test_a_mistake_ends_the_job_with_a_sentence(client: Client) -> None:
    assert client.hook("prolog", SPANK_QPU_SLURM_QPU="ibm_kyiv") == 0
    assert 'AdminComment={"qpu_slurm":{"error":"There is no QPU' in client.told
    code, printed = client.job_env()
    assert code == 0
    assert printed.startswith("error: There is no QPU 'ibm_kyiv' here.")


@pytest.mark.parametrize(
    "value", ["$(touch pwned)", "\xff\xfe", "a\nb", "x" * 9000], ids=["sh", "bytes", "line", "long"]
)
def test_what_users_write_is_no_more_than_a_name(
    build: Path, site: Site, host: Path, tmp_path: Path, value: str
) -> None:
    client = Client(build, site, host)
    assert client.hook("prolog", SPANK_QPU_SLURM_QPU=value) == 0
    assert re.search(r"is not the name of a QPU|--qpu has more than \d+ characters", client.told)
    assert not list(tmp_path.rglob("pwned"))


def without_time(text: str) -> str:
    return re.sub(r"(SESSION_MAX_TTL)=\d+", r"\1=", text)


STARTS = {"a step": ("--step", "0", "--name=python", "--at", f"{time.time():.3f}"), "another node": ()}


@pytest.mark.parametrize("told", STARTS.values(), ids=STARTS)
def test_a_step_learns_what_python_says(client: Client, site: Site, told: tuple[str, ...]) -> None:
    assert client.hook("prolog") == 0
    code, printed = client.job_env(*told)
    assert code == 0
    assert "QISKIT_IBM_TOKEN=qpu-slurm-job-key-" in printed
    (lease,) = site.journal.leases(job_id=client.job)
    assert f"ibm_fez_QRMI_JOB_ACQUISITION_TOKEN={lease.session_id}\n" in printed

    # Of a job that was not started here, Slurm is asked: its record says the same.
    until(lambda: "AdminComment" in client.told)
    assert without_time(client.python()[1]) == without_time(printed)


def test_a_step_learns_it_from_a_gateway_that_was_killed_before_slurm_knew(
    client: Client, site: Site
) -> None:
    """Slurm's record of the job is as it was before the prolog."""
    assert client.hook("prolog") == 0
    (lease,) = site.journal.leases(job_id=client.job)
    site.kill()
    Squeue(site.directory).lists(client.job, user_id=OWNER)
    site.start()
    code, printed = client.job_env()
    assert code == 0
    assert f"ibm_fez_QRMI_JOB_ACQUISITION_TOKEN={lease.session_id}\n" in printed
    assert lease.tag in printed


def test_slurms_record_is_completed_by_the_next_gateway_and_is_enough_for_a_new_journal(
    build: Path, emulator: Emulator, host: Path, no_python: Path
) -> None:
    with Site(emulator) as site:
        client = Client(build, site, host, program=no_python)
        site.journal.close()  # of all processes, the gateway alone has it open
        scontrol = site.directory / "scontrol"
        writes = scontrol.read_text()
        scontrol.write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
        site.start()
        assert client.hook("prolog") == 0
        before = client.job_env()[1]
        site.kill()
        assert client.told == ""
        scontrol.write_text(writes)
        site.start()

        def comments() -> list[str]:
            return re.findall(
                rf"^update JobId={client.job}\+0 AdminComment=(.*)\n", client.told, re.MULTILINE
            )

        until(comments)
        (comment,) = comments()
        Squeue(site.directory).lists(client.job, user_id=OWNER, admin_comment=comment)
        site.kill()
        for path in site.config.journal.parent.glob("journal.sqlite*"):
            if path.suffix != ".secret":
                path.unlink()
        site.start()
        until(lambda: site.events("lease taken over"))
        assert without_time(client.job_env()[1]) == without_time(before)
        assert comments() == [comment]


def test_what_steps_do_is_in_the_journal(client: Client, site: Site) -> None:
    assert client.hook("prolog") == 0
    (lease,) = site.journal.leases(job_id=client.job)
    now = f"{time.time():.3f}"
    assert client.job_env("--step", "3", "--name=-python", "--at", now)[0] == 0
    assert client.helper("step-end", str(client.job), "3", "--user", str(OWNER), "--at", now) == (0, "")

    def seen() -> list[tuple[str, str, bool]]:
        return [
            (step.step, step.name, step.ended_at is not None)
            for step in site.journal.history.steps(client.job, lease.run)
        ]

    until(lambda: seen() == [("3", "-python", True)])


def test_another_users_job_is_refused(client: Client, site: Site) -> None:
    Squeue(site.directory).lists(client.job, user_id=OWNER + 1)
    assert client.hook("prolog", SLURM_JOB_UID=str(OWNER + 1)) == 0
    if os.geteuid() == 0:  # who else may not have hooks, either
        assert client.job_env() == (0, f"error: Job {client.job} belongs to another user.\n")


def test_a_gateway_that_is_away_is_waited_for(build: Path, site: Site, host: Path, no_python: Path) -> None:
    away = Client(build, site, host, program=no_python, url="http://127.0.0.1:9")
    code, printed = away.job_env()
    assert code == os.EX_TEMPFAIL
    assert re.fullmatch(
        r"wait: \S+: The gateway http://127.0.0.1:9 does not answer: Connection refused.\n", printed
    )


def test_a_slurm_that_is_away_is_waited_for(client: Client, site: Site) -> None:
    away = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    (site.directory / "squeue").write_text(f"#!/bin/sh\necho '{away}' >&2\nexit 1\n")
    code, printed = client.job_env(job_id=client.job + 1)
    assert code == os.EX_TEMPFAIL
    assert printed.startswith("wait: ")
    assert "Unable to contact slurm controller" in printed


@contextmanager
def answering(status: int, body: bytes, kind: str) -> Iterator[str]:
    """Answer whatever is asked."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


STRANGE = {
    "an older gateway": (404, b'{"errors":[]}', "application/json"),
    "another server": (200, b"<html>", "text/html"),
    "an error that is none of ours": (500, b"Internal Server Error", "text/plain"),
}


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE)
def test_python_goes_on_where_the_client_cannot(
    build: Path, site: Site, host: Path, tmp_path: Path, answer: tuple[int, bytes, str]
) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$*" "$(id -u)"\nexit 7\n')
    python.chmod(0o755)
    with answering(*answer) as url:
        strange = Client(build, site, host, program=python, url=url)
        code, printed = strange.job_env()
        assert (code, printed) == (
            7,
            f"--config {strange.config} job-env {strange.job} --user {OWNER} {OWNER}\n",
        )
        # Neither says what is to become of the job, so it has to wait.
        assert strange.hook("prolog") == 1


def test_tls_is_spoken_and_the_authority_checked(
    emulator: Emulator, build: Path, tmp_path: Path, no_python: Path
) -> None:
    with Site(emulator) as site:
        certificate, key = site.directory / "gateway.pem", site.directory / "gateway.key"
        speak_tls(site, certificate, key)
        site.start()
        client = Client(build, site, prepared(tmp_path), program=no_python)
        assert client.hook("prolog") == 0
        code, printed = client.job_env()
        assert (code, f"REQUESTS_CA_BUNDLE={certificate}\nSSL_CERT_FILE={certificate}\n" in printed) == (
            0,
            True,
        )
        assert f"QISKIT_IBM_URL={site.url}/" in printed

        # Another gateway's certificate: nothing is said to it, and Python says what is wrong.
        renew(site.directory / "other.pem", site.directory / "other.key")
        client.config.write_text(client.config.read_text().replace("gateway.pem", "other.pem"))
        assert client.job_env() == (99, "")
        answers = len(site.events("request"))
        assert client.job_env("--unasked") == (99, "")
        assert len(site.events("request")) == answers


@pytest.mark.parametrize(
    ("lines", "arguments"),
    [
        ('[[qpu]]\nname = "x"\ncredentials = "user"\n', ()),
        ("[slurm]\n", ()),
        ("", ("--verbose",)),
    ],
    ids=["a user's own key", "a table twice", "another argument"],
)
def test_python_reads_what_the_client_does_not(
    client: Client, lines: str, arguments: tuple[str, ...]
) -> None:
    with client.config.open("a") as file:
        file.write(lines)
    code, _ = client.job_env(*arguments)
    assert code == 99


def test_the_prolog_has_python_requeue_the_job_while_the_gateway_is_away(
    build: Path, site: Site, host: Path
) -> None:
    away = Client(build, site, host, url="http://127.0.0.1:9")
    assert away.hook("prolog") == 0
    assert f"requeue {away.job}\n" in away.told
    assert "does not answer" in away.told
