#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# qrmi 0.26.4: target() of a backend that the service does not have succeeds, with null for both of its parts.
#
# One would guess that it raises: the service answers 404 to the configuration and to the properties, and
# is_accessible() raises ResourceNotFoundError in the same place. It returns {"configuration":null,"properties":null}.
# The mistake shows later: qrmi.primitives.ibm.get_backend(), which takes the configuration apart, ends with
# "TypeError: 'NoneType' object is not subscriptable", and names no backend.
#
# Source: qrmi 0.26.4 on PyPI; the same with 0.23.1 and 0.25.1.
#
# Needs python3 with venv, and pip. Exits 0 if qrmi still does so.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT INT TERM
python3 -m venv "$directory/venv"
"$directory/venv/bin/pip" install --quiet --disable-pip-version-check 'qrmi==0.26.4'
timeout 60 "$directory/venv/bin/python" -W ignore - <<'PYTHON'
import base64
import http.server
import json
import os
import threading
import time


def part(data):
    return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()


class Service(http.server.BaseHTTPRequestHandler):
    """IAM, which gives a token, and a service that has no backend."""

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        now = int(time.time())
        token = f"{part({'alg': 'none'})}.{part({'iat': now, 'exp': now + 3600})}."
        self.answer(
            200,
            {
                "access_token": token,
                "refresh_token": "none",
                "token_type": "Bearer",
                "expires_in": 3600,
                "expiration": now + 3600,
            },
        )

    def do_GET(self):
        error = {"code": 1007, "message": "Backend not found.", "solution": "", "more_info": ""}
        self.answer(404, {"errors": [error], "trace": "none"})

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
os.environ |= {
    "ibm_typo_QRMI_IBM_QCS_ENDPOINT": f"{url}/api/v1",
    "ibm_typo_QRMI_IBM_QCS_IAM_ENDPOINT": url,
    "ibm_typo_QRMI_IBM_QCS_IAM_APIKEY": "key",
    "ibm_typo_QRMI_IBM_QCS_SERVICE_CRN": "crn:v1:bluemix:public:quantum-computing:us-east:a/0:0::",
}

from qrmi import QuantumResource, ResourceType

resource = QuantumResource("ibm_typo", ResourceType.IBMQuantumComputeService)
try:
    resource.is_accessible()
except Exception as error:
    asked = type(error).__name__
else:
    asked = "nothing raised"
value = resource.target().value
print(f"qrmi 0.26.4: is_accessible(): {asked}; target().value: {value}")
same = asked == "ResourceNotFoundError" and json.loads(value) == {"configuration": None, "properties": None}
raise SystemExit(0 if same else 1)
PYTHON
