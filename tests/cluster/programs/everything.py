# SPDX-License-Identifier: Apache-2.0
"""All that the API tells a job: every answer, with its headers."""

import os

import requests

api = os.environ["QISKIT_IBM_URL"]
base = os.environ["IAM_URL"]
qpu = os.environ["QRMI_JOB_QPU_RESOURCES"]
session = os.environ[f"{qpu}_QRMI_JOB_ACQUISITION_TOKEN"]
key = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": os.environ["QISKIT_IBM_TOKEN"]}
circuit = 'OPENQASM 3.0; include "stdgates.inc"; bit[1] c; x $0; c[0] = measure $0;'
submission = {
    "program_id": "sampler",
    "backend": qpu,
    "session_id": session,
    "params": {"pubs": [[circuit, None, 1]], "version": 2},
}

http = requests.Session()


def show(method: str, url: str, **arguments: object) -> requests.Response:
    answer = http.request(method, url, timeout=30, **arguments)
    print(method, url, answer.status_code, dict(answer.request.headers), dict(answer.headers), answer.text)
    return answer


token = show("POST", f"{base}/identity/token", data=key).json()
http.headers["Authorization"] = f"Bearer {token['access_token']}"
show("POST", f"{base}/v3/resources/search", json={"query": "*"})
for path in ("/healthz", "/metrics", "/catalog/slurm", "/emulator/accounts"):
    show("GET", base + path)
task = show("POST", f"{api}/jobs", json=submission).json()["id"]
for path in (
    "/backends",
    f"/backends/{qpu}/configuration",
    f"/backends/{qpu}/properties",
    f"/backends/{qpu}/status",
    "/instances/usage",
    f"/sessions/{session}",
    "/sessions",
    "/jobs",
    f"/jobs/{task}",
    f"/jobs/{task}/results",
    f"/jobs/{task}/logs",
    f"/jobs/{task}/metrics",
    "/workloads",
    "/nowhere",
):
    show("GET", api + path)
show("POST", f"{api}/sessions", json={"backend": qpu, "mode": "dedicated"})
show("POST", f"{api}/jobs", data="no JSON")
print(key)
