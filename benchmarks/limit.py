# SPDX-License-Identifier: Apache-2.0
"""The bare requests: what nothing that works can do without.

    python limit.py NAME INPUT OUTPUT [INPUT OUTPUT]...

A token, and for each input: submit, look until it is over, fetch the result, write it. Nothing is checked,
repeated, cancelled or said, so nobody should use it. It is the limit that task_runner is compared with.
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


def main(name: str, *paths: str) -> None:
    """Execute inputs, one after the other."""
    environ = {
        key: os.environ[f"{name}_QRMI_IBM_QCS_{key}"]
        for key in ("ENDPOINT", "IAM_ENDPOINT", "IAM_APIKEY", "SERVICE_CRN")
    }
    http = PoolManager(timeout=Timeout(_TIMEOUT), retries=False)
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


def authorized(http: PoolManager, iam: str, key: str, crn: str) -> dict[str, str]:
    """Get a token, and return the headers that every request has."""
    grant = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": key}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = http.request("POST", f"{iam}/identity/token", body=urlencode(grant), headers=form)
    token = json.loads(answer.data)["access_token"]
    return {"Authorization": f"Bearer {token}", "Service-CRN": crn, "Content-Type": "application/json"}


def _status(answer: BaseHTTPResponse) -> str:
    return str(json.loads(answer.data)["status"])


if __name__ == "__main__":
    main(*sys.argv[1:])
