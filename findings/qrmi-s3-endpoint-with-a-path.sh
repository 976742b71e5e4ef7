#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# qrmi 0.26.4, type ibm-quantum-system: an S3 endpoint that has a path needs a slash at its end.
#
# One would guess that http://host/s3 and http://host/s3/ are one endpoint, as they are to boto3, and that the bucket
# follows a slash. qrmi asks http://host/s3bucket/… with the first: the bucket's name is glued to the path. The
# presigned URLs that it hands to the service are wrong in the same way. An endpoint without a path needs no slash.
#
# Source: qrmi 0.26.4 on PyPI (it uses AWS's SDK for Rust), seen with QRMI_IBM_QS_S3_ENDPOINT.
#
# Needs python3 with venv, and pip. Exits 0 if qrmi still does so.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT INT TERM
python3 -m venv "$directory/venv"
"$directory/venv/bin/pip" install --quiet --disable-pip-version-check 'qrmi==0.26.4'
timeout 60 "$directory/venv/bin/python" -W ignore - <<'PYTHON'
import http.server
import json
import os
import threading
from urllib.parse import urlsplit

seen = []


class Service(http.server.BaseHTTPRequestHandler):
    """IAM, the Quantum System API and its storage, as far as a submission asks them."""

    def answer(self, status, document=None):
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        seen.append(urlsplit(self.path).path)
        self.answer(200)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/identity/token":
            self.answer(200, {"access_token": "token", "token_type": "Bearer", "expires_in": 3600})
        else:
            seen.append(urlsplit(json.loads(body)["storage"]["results"]["presigned_url"]).path)
            self.answer(204)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"

from qrmi import Payload, QuantumResource, ResourceType

payload = Payload.QiskitPrimitive(input=json.dumps({"pubs": [], "version": 2}), program_id="sampler")
found = {}
for path in ("/s3", "/s3/", ""):
    settings = {
        "ENDPOINT": url,
        "IAM_ENDPOINT": url,
        "IAM_APIKEY": "key",
        "SERVICE_CRN": "crn",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "S3_ENDPOINT": f"{url}{path}",
        "S3_BUCKET": "bucket",
        "S3_REGION": "us-east-1",
    }
    os.environ |= {f"qpu_QRMI_IBM_QS_{name}": value for name, value in settings.items()}
    os.environ["qpu_QRMI_JOB_TIMEOUT_SECONDS"] = "60"
    seen.clear()
    task = QuantumResource("qpu", ResourceType.IBMQuantumSystem).task_start(payload)
    found[path] = [name.replace(task, "ID") for name in seen]
    print(f"qrmi 0.26.4: S3 endpoint {path or 'without a path'}: stores {found[path][0]}, presigns {found[path][1]}")
same = {
    "/s3": ["/s3bucket/input_ID.json", "/s3bucket/results_ID.json"],
    "/s3/": ["/s3/bucket/input_ID.json", "/s3/bucket/results_ID.json"],
    "": ["/bucket/input_ID.json", "/bucket/results_ID.json"],
}
raise SystemExit(0 if found == same else 1)
PYTHON
