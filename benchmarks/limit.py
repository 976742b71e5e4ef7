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

import requests

_PAUSE = 0.02
_TIMEOUT = 60


def main(name: str, *paths: str) -> None:
    """Execute inputs, one after the other."""
    environ = {
        key: os.environ[f"{name}_QRMI_IBM_QCS_{key}"] for key in ("ENDPOINT", "IAM_ENDPOINT", "SERVICE_CRN")
    }
    http = requests.Session()
    grant = {
        "grant_type": "urn:ibm:params:oauth:grant-type:apikey",
        "apikey": os.environ[f"{name}_QRMI_IBM_QCS_IAM_APIKEY"],
    }
    token = http.post(f"{environ['IAM_ENDPOINT']}/identity/token", data=grant, timeout=_TIMEOUT).json()
    http.headers["Authorization"] = f"Bearer {token['access_token']}"
    http.headers["Service-CRN"] = environ["SERVICE_CRN"]
    jobs = f"{environ['ENDPOINT']}/jobs"
    for source, destination in zip(paths[::2], paths[1::2], strict=True):
        given = json.loads(Path(source).read_bytes())
        body = {
            "program_id": given["program_id"],
            "params": given["parameters"],
            "backend": name,
            "session_id": os.environ[f"{name}_QRMI_JOB_ACQUISITION_TOKEN"],
        }
        task = f"{jobs}/{http.post(jobs, json=body, timeout=_TIMEOUT).json()['id']}"
        query = {"exclude_params": "true"}
        while http.get(task, params=query, timeout=_TIMEOUT).json()["status"] != "Completed":
            time.sleep(_PAUSE)
        Path(destination).write_bytes(http.get(f"{task}/results", timeout=_TIMEOUT).content)


if __name__ == "__main__":
    main(*sys.argv[1:])
