# SPDX-License-Identifier: Apache-2.0
"""What another user tries with a job of his own, who knows all of the first one's that is no secret.

    intruder.py URL JOB SESSION TASK

It prints a line for each try: the status of the answer, and what it was.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import requests

from qpu_slurm.gateway import messages
from qpu_slurm.system import munge

url, job, session, task = sys.argv[1:]
api = f"{url}/experimental/api/v1"
grant = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": os.environ["QISKIT_IBM_TOKEN"]}
token = requests.post(f"{url}/identity/token", data=grant, timeout=30).json()["access_token"]
bearer = {"Authorization": f"Bearer {token}"}
nobody = {"Authorization": "Bearer wrong", "Service-CRN": os.environ["QISKIT_IBM_INSTANCE"]}
circuit = "OPENQASM 3.0; bit[1] c; c[0] = measure $0;"
submission = {
    "program_id": "sampler",
    "backend": "ibm_fez",
    "session_id": session,
    "params": {"pubs": [[circuit, None, 1]], "version": 2},
}

TRIES = (
    ("GET", f"/sessions/{session}", None),
    ("PATCH", f"/sessions/{session}", {"accepting_jobs": False}),
    ("DELETE", f"/sessions/{session}/close", None),
    ("POST", "/jobs", submission),
    ("GET", f"/jobs/{task}", None),
    ("GET", f"/jobs/{task}?exclude_params=true", None),
    ("GET", f"/jobs/{task}/results", None),
    ("GET", f"/jobs/{task}/logs", None),
    ("GET", f"/jobs/{task}/metrics", None),
    ("PUT", f"/jobs/{task}/tags", {"tags": ["mine"]}),
    ("POST", f"/jobs/{task}/cancel", None),
    ("DELETE", f"/jobs/{task}", None),
    ("GET", "/backends/ibm_fez/configuration", None),
    ("GET", f"/../api/v1/jobs/{task}", None),
)
SIGNED = (
    ("GET", messages.job_keys_path(int(job))),
    ("DELETE", messages.job_leases_path(int(job), "mine")),
    ("POST", messages.LEASES_PATH),
)


def tell(status: int, what: str) -> None:
    print(json.dumps([status, what]))


def signed(method: str, path: str, signed_path: str) -> requests.Response:
    # `scontrol show config` tells everybody where munged listens.
    config = subprocess.run(
        ["/usr/bin/env", "scontrol", "show", "config"], capture_output=True, text=True, check=True
    ).stdout
    socket = Path(config.split("socket=")[1].split()[0])
    credential = munge.encode(messages.binding(method, signed_path), socket=socket)
    return requests.request(method, url + path, headers={"Authorization": f"MUNGE {credential}"}, timeout=30)


for who, headers in (("own key", bearer), ("no key", nobody), ("nothing", {})):
    for method, path, body in TRIES:
        answer = requests.request(method, api + path, json=body, headers=headers, timeout=30)
        tell(answer.status_code, f"{who}: {method} {path.split('?')[0]}")
for method, path in SIGNED:
    tell(signed(method, path, path).status_code, f"MUNGE: {method} {path}")
    tell(signed(method, path, "/elsewhere").status_code, f"MUNGE for another request: {method} {path}")
for path in ("/jobs", "/jobs?session_id=" + session, "/workloads?mode=session", "/sessions"):
    answer = requests.get(api + path, headers=bearer, timeout=30)
    tell(403 if session not in answer.text and task not in answer.text else 200, f"listing: {path}")
