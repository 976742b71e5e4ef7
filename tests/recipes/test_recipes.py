# SPDX-License-Identifier: Apache-2.0
"""Every example of docs/recipes.md does what the page says, and leaves no session."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from qpu_slurm_devkit.cluster import free_port
from qpu_slurm_devkit.lab import Lab
from tests.cluster.conftest import CHECKOUT, check_nothing_left

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = CHECKOUT / "docs" / "recipes.md"
TOOLS = Path(os.environ["RECIPES"]) / "bin"

SLURM = ("sacct", "sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")

SECONDS = 240
TOKEN = "the-servers-token"

COUNTS = "pub 0, register meas: "
"""What `result.py` prints; the input is one of contrib/seed."""


def blocks(section: str, language: str) -> list[str]:
    """Return the examples in one language below a heading of the page."""
    text = re.split(rf"^#+ {section}$", PAGE.read_text(), flags=re.MULTILINE)[1]
    text = re.split(r"^#{1,3} \w", text, flags=re.MULTILINE)[0]
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return found


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[Lab]:
    """Return a lab whose user has the tools, and what they run, in one environment."""
    (packages,) = TOOLS.parent.glob("lib/python*/site-packages")
    own = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "qpu_slurm.pth").write_text(f"{own}\n")
    with Lab(CHECKOUT) as lab:
        # A cluster has its slurm.conf in /etc/slurm. This one's is named by a variable, which Snakemake keeps
        # from its jobs.
        bin_ = lab.cluster.directory / "slurm-bin"
        bin_.mkdir(mode=0o755)
        for name in SLURM:
            program = bin_ / name
            program.write_text(f'#!/bin/sh\nSLURM_CONF={lab.cluster.conf} exec /usr/bin/{name} "$@"\n')
            program.chmod(0o755)
        lab.environ["PATH"] = f"{bin_}:{TOOLS}:{lab.environ['PATH']}"
        yield lab


@pytest.fixture
def lab(shared_lab: Lab) -> Iterator[Lab]:
    """Return the lab; whatever a tool does, no session and no node is lost."""
    shared_lab.put(CHECKOUT / "contrib" / "seed")
    shared_lab.emulator.reset()
    yield shared_lab
    check_nothing_left(shared_lab)


def write(lab: Lab, name: str, text: str) -> Path:
    path = lab.cluster.home() / name
    path.write_text(text)
    os.chown(path, lab.cluster.home().stat().st_uid, -1)
    return path


def run(lab: Lab, command: str) -> str:
    """Run what a user types in their home; return what it printed."""
    done = lab.run(["/bin/sh", "-c", f"cd {lab.cluster.home()} && {command} 2>&1"], timeout=SECONDS)
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def counts(lab: Lab) -> str:
    return (lab.cluster.home() / "counts.txt").read_text()


def sessions(lab: Lab) -> int:
    return len(lab.emulator.sessions())


def test_a_notebook_runs_as_a_job(lab: Lab) -> None:
    (script,), (cell,) = blocks("A notebook as a job", "sh"), blocks("A notebook as a job", "python")
    kernel = {"name": "python3", "display_name": "Python", "language": "python"}
    code = {"cell_type": "code", "id": "one", "metadata": {}, "outputs": [], "source": cell}
    notebook = {"cells": [code | {"execution_count": None}], "metadata": {"kernelspec": kernel}}
    path = write(lab, "experiment.ipynb", json.dumps(notebook | {"nbformat": 4, "nbformat_minor": 5}))
    job = lab.submit(script)
    assert lab.wait(job, SECONDS) == "COMPLETED", lab.cluster.output(job)
    (output,) = json.loads(path.read_text())["cells"][0]["outputs"][-1:]
    assert output["text"] in ("['00', '11']\n", ["['00', '11']\n"])
    assert sessions(lab) == 1


def test_a_kernel_of_jupyterlab_in_a_job_has_its_qpu(lab: Lab) -> None:
    (command,), (cell,) = blocks("JupyterLab in a job", "sh"), blocks("A notebook as a job", "python")
    port = free_port()
    argv = ["/bin/sh", "-c", f"cd {lab.cluster.home()} && exec {command.replace('8888', str(port))}"]
    process = lab.cluster.popen(argv, env={**lab.environ, "JUPYTER_TOKEN": TOKEN})
    server = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: requests.get(f"{server}/api/status", headers=HEADERS, timeout=10).ok)
        answer = requests.post(f"{server}/api/kernels", headers=HEADERS, json={}, timeout=60)
        assert answer.ok, answer.text
        assert execute(f"ws://127.0.0.1:{port}/api/kernels/{answer.json()['id']}/channels", cell) == (
            "['00', '11']\n"
        )
        assert sessions(lab) == 1
        assert requests.post(f"{server}/api/shutdown", headers=HEADERS, timeout=60).ok
        process.communicate(timeout=SECONDS)
    finally:
        process.terminate()
        process.communicate()


HEADERS = {"Authorization": f"token {TOKEN}"}


def wait_for(condition: Any) -> None:  # noqa: ANN401 - whatever can be called
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            if condition():
                return
        except requests.RequestException:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.5)


CLIENT = """
import json, sys, websocket
url, token, message = sys.argv[1:]
socket = websocket.create_connection(url, header=[f"Authorization: token {token}"], timeout=200)
socket.send(message)
said = ""
while True:
    answer = json.loads(socket.recv())
    content = answer["content"]
    if answer["parent_header"].get("msg_id") != json.loads(message)["header"]["msg_id"]:
        continue
    if answer["msg_type"] == "stream" and content["name"] == "stdout":
        said += content["text"]
    if answer["msg_type"] == "error":
        said += content["evalue"]
    if answer["msg_type"] == "status" and content["execution_state"] == "idle":
        break
print(said, end="")
"""
"""As the browser, over Jupyter's websocket."""


def execute(url: str, code: str) -> str:
    """Execute a cell; return what it printed."""
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "version": "5.3"}
    header |= {"username": "", "session": uuid.uuid4().hex, "date": ""}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    argv = [str(TOOLS / "python"), "-c", CLIENT, url, TOKEN, json.dumps(message)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_snakemake_gives_one_rule_the_qpu(lab: Lab) -> None:
    (snakefile,), (_, command) = blocks("Snakemake", "snakemake"), blocks("Snakemake", "sh")
    write(lab, "Snakefile", snakefile)
    # As the page says of a cluster without slurmdbd, and of short jobs.
    quick = "--slurm-status-command=squeue --slurm-init-seconds-before-status-checks=5"
    run(lab, f"{command.strip()} {quick} --seconds-between-status-checks=3")
    assert counts(lab).startswith(COUNTS)
    # The rule that transpiles opens none.
    assert sessions(lab) == 1


def test_parsl_runs_its_apps_in_one_job_with_the_qpu(lab: Lab) -> None:
    (program,) = blocks("Parsl", "python")
    write(lab, "workflow.py", program)
    run(lab, f"{TOOLS}/python workflow.py")
    assert counts(lab).startswith(COUNTS)
    assert sessions(lab) == 1
