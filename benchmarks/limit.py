# SPDX-License-Identifier: Apache-2.0
"""The bare requests: what nothing that works can do without.

    python limit.py NAME INPUT OUTPUT [INPUT OUTPUT]...
    python limit.py acquire URL KEY CRN QPU SECONDS
    python limit.py release URL KEY CRN SESSION

A token, and for each input: submit, look until it is over, fetch the result, write it; for a session: look
whether the QPU is there, open one, print its id; or close it, and look that nothing is left in it. Nothing is
checked, repeated, cancelled or said, so nobody should use it. It is the limit that ours is compared with.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from urllib3 import PoolManager, Timeout

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_PAUSE = 0.02
_TIMEOUT = 60


def acquire(url: str, key: str, crn: str, qpu: str, seconds: str) -> str:
    """Open a session; return its id."""
    with pool() as http:
        return open_session(http, authorized(http, url, key, crn), url, qpu, seconds)


def open_session(http: PoolManager, headers: dict[str, str], url: str, qpu: str, seconds: str) -> str:
    """Do so with a token that there is already."""
    http.request("GET", f"{url}/api/v1/backends/{qpu}/status", headers=headers)
    crn = headers["Service-CRN"]
    body = {"mode": "dedicated", "backend": qpu, "instance": crn, "max_ttl": int(seconds)}
    answer = http.request("POST", f"{url}/api/v1/sessions", body=json.dumps(body), headers=headers)
    return str(json.loads(answer.data)["id"])


def release(url: str, key: str, crn: str, session: str) -> None:
    """Close a session."""
    with pool() as http:
        close_session(http, authorized(http, url, key, crn), url, session)


def close_session(http: PoolManager, headers: dict[str, str], url: str, session: str) -> None:
    """Do so with a token that there is already."""
    http.request("DELETE", f"{url}/api/v1/sessions/{session}/close", headers=headers)
    query = f"exclude_params=true&session_id={session}&limit=50&pending=true"
    http.request("GET", f"{url}/api/v1/jobs?{query}", headers=headers)


def execute(name: str, *paths: str) -> None:
    """Execute inputs, one after the other."""
    environ = {
        key: os.environ[f"{name}_QRMI_IBM_QCS_{key}"]
        for key in ("ENDPOINT", "IAM_ENDPOINT", "IAM_APIKEY", "SERVICE_CRN")
    }
    http = pool()
    headers = authorized(http, environ["IAM_ENDPOINT"], environ["IAM_APIKEY"], environ["SERVICE_CRN"])
    jobs = f"{environ['ENDPOINT']}/jobs"
    for source, destination in zip(paths[::2], paths[1::2], strict=True):
        given = json.loads(Path(source).read_bytes())
        body = {
            "program_id": given["program_id"],
            "params": given["parameters"],
            "backend": name,
            "session_id": os.environ[f"{name}_QRMI_JOB_ACQUISITION_TOKEN"],
        }
        answer = http.request("POST", jobs, body=json.dumps(body), headers=headers)
        task = f"{jobs}/{json.loads(answer.data)['id']}"
        while _status(http.request("GET", f"{task}?exclude_params=true", headers=headers)) != "Completed":
            time.sleep(_PAUSE)
        Path(destination).write_bytes(http.request("GET", f"{task}/results", headers=headers).data)


def pool() -> PoolManager:
    """Return what keeps connections."""
    return PoolManager(timeout=Timeout(_TIMEOUT), retries=False)


def authorized(http: PoolManager, iam: str, key: str, crn: str) -> dict[str, str]:
    """Ask for a token, and return the headers that every request has."""
    grant = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": key}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = http.request("POST", f"{iam}/identity/token", body=urlencode(grant), headers=form)
    token = json.loads(answer.data)["access_token"]
    return {"Authorization": f"Bearer {token}", "Service-CRN": crn, "Content-Type": "application/json"}


def _status(answer: BaseHTTPResponse) -> str:
    return str(json.loads(answer.data)["status"])


if __name__ == "__main__":
    _, what, *arguments = sys.argv
    if what == "acquire":
        print(acquire(*arguments))  # noqa: T201 - its output
    elif what == "release":
        release(*arguments)
    else:
        execute(what, *arguments)
