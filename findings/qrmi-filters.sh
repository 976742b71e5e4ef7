#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# qrmi 0.26.4: a filter of ResourceProvider.resources() that it does not know is passed over, and numbers are least
# values.
#
# One would guess that num_qubits=130 means 130 qubits, and that a name it does not know, such as processor_type or a
# misspelt num_qubit, is an error: a value that is no number is one. num_qubits=130 means 130 or more. An unknown name
# is accepted and has no effect, so resources("processor_type=eagle") lists every QPU, and least_busy() with it may
# return any of them. num_qubits>=140 is an unknown name, too: "num_qubits>" with the value 140.
#
# Source: qrmi 0.26.4 on PyPI; its documentation shows "num_qubits=127&name=ibm_*&status=online".
#
# The QPUs' configurations are the snapshots in qiskit-ibm-runtime's wheel.
#
# Needs python3 with venv, and pip. Exits 0 if qrmi still does so.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT INT TERM
python3 -m venv "$directory/venv"
"$directory/venv/bin/pip" install --quiet --disable-pip-version-check 'qrmi==0.26.4'
"$directory/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps 'qiskit-ibm-runtime==0.51.0'
timeout 60 "$directory/venv/bin/python" -W ignore - <<'PYTHON'
import base64
import http.server
import importlib.metadata
import json
import threading
import time

FILES = importlib.metadata.files("qiskit-ibm-runtime")


def configuration(name):
    end = f"fake_provider/backends/{name}/conf_{name}.json"
    (path,) = (file for file in FILES if str(file).endswith(end))
    return json.loads(path.read_text()) | {"backend_name": f"ibm_{name}", "simulator": False}


QPUS = {f"ibm_{name}": configuration(name) for name in ("torino", "fez", "marrakesh")}


def part(data):
    return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()


class Service(http.server.BaseHTTPRequestHandler):
    """IAM, which gives a token, and a service that lists three QPUs: 133, 156 and 156 qubits."""

    def answer(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        now = int(time.time())
        self.answer(
            {
                "access_token": f"{part({'alg': 'none'})}.{part({'iat': now, 'exp': now + 3600})}.",
                "refresh_token": "none",
                "token_type": "Bearer",
                "expires_in": 3600,
                "expiration": now + 3600,
            }
        )

    def do_GET(self):
        for name, document in QPUS.items():
            if self.path.endswith(f"/{name}/configuration"):
                return self.answer(document)
        error = {"value": 0.005, "gate": "cz", "qubits": [0, 1]}
        return self.answer(
            {
                "devices": [
                    {
                        "name": name,
                        "status": {"name": "online", "reason": "available"},
                        "is_simulator": False,
                        "qubits": document["n_qubits"],
                        "clops": {"type": "hardware", "value": 200000},
                        "processor_type": {"family": "Heron", "revision": "2"},
                        "queue_length": 0,
                        "performance_metrics": {"two_q_error_best": error, "two_q_error_layered": error},
                    }
                    for name, document in QPUS.items()
                ]
            }
        )

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"

from qrmi import ResourceProvider, ResourceType

provider = ResourceProvider(
    ResourceType.IBMQuantumComputeService,
    {
        "QRMI_IBM_QCS_ENDPOINT": f"{url}/api/v1",
        "QRMI_IBM_QCS_IAM_ENDPOINT": url,
        "QRMI_IBM_QCS_IAM_APIKEY": "key",
        "QRMI_IBM_QCS_SERVICE_CRN": "crn:v1:bluemix:public:quantum-computing:us-east:a/0:0::",
    },
)
EXPECTED = {
    "num_qubits=130": set(QPUS),
    "num_qubits=140": {"ibm_fez", "ibm_marrakesh"},
    "processor_type=eagle": set(QPUS),
    "num_qubit=1000": set(QPUS),
    "num_qubits>=140": set(QPUS),
}
same = True
for wanted, expected in EXPECTED.items():
    found = {resource.resource_id() for resource in provider.resources(wanted)}
    print(f"qrmi 0.26.4: resources({wanted!r}): {', '.join(sorted(found))}")
    same = same and found == expected
try:
    provider.resources("num_qubits=many")
except Exception as error:
    print(f"qrmi 0.26.4: resources('num_qubits=many'): {type(error).__name__}: {error}")
else:
    same = False
raise SystemExit(0 if same else 1)
PYTHON
