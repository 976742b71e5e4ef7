#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# iqm-client 36.0.0: the URL of a server may have a path, and then its port is lost.
#
# IQM_SERVER_URL may be https://host:8443/iqm/, say, for a server behind a proxy: a path that ends with a slash is
# taken. One would guess that requests go to https://host:8443/iqm/api/v1/…, or that the client refuses the URL by
# name. What is seen: the client writes the port behind the path (http://host//iqm:8443), so the request goes to
# port 80 (443 with https) and fails there. Without a path, the port is right. So a server, or a gateway before it,
# has to answer at the root of a host and port.
#
# Source: iqm/iqm_server_client/iqm_server_client.py, IQMServerClient._normalize_url, in iqm-client 36.0.0 on PyPI.
#
# Needs python3 with venv, and pip. Exits 0 if iqm-client still does so.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT INT TERM
python3 -m venv "$directory/venv"
"$directory/venv/bin/pip" install --quiet --disable-pip-version-check 'iqm-client==36.0.0'
timeout 300 "$directory/venv/bin/python" -W ignore - <<'PYTHON'
import http.server
import json
import threading
import uuid
from importlib.metadata import version

import requests
from iqm.iqm_client import IQMClient

asked = []
LISTING = {"quantum_computers": [{"id": str(uuid.uuid4()), "alias": "one", "display_name": "One"}]}


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked.append(self.path)
        body = json.dumps(LISTING).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


sent = []
get = requests.get


def remember(url: str, **arguments: object) -> requests.Response:
    """Note where a request goes; one for another port than the server's is not sent."""
    sent.append(url)
    if f"127.0.0.1:{port}" not in url:
        raise requests.ConnectionError(url)
    return get(url, **arguments)


remember.__name__ = "get"
requests.get = remember
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
port = server.server_address[1]
threading.Thread(target=server.serve_forever, daemon=True).start()

IQMClient.from_url(f"http://127.0.0.1:{port}/")
assert asked == ["/api/v1/quantum-computers"]
try:
    IQMClient.from_url(f"http://127.0.0.1:{port}/iqm/")
except requests.ConnectionError:
    pass
server.shutdown()

print(f"iqm-client {version('iqm-client')}")
print(f"http://127.0.0.1:{port}/ is asked at {sent[0]}")
print(f"http://127.0.0.1:{port}/iqm/ is asked at {sent[1]}")
assert asked == ["/api/v1/quantum-computers"]
assert sent[1] == f"http://127.0.0.1//iqm:{port}/api/v1/quantum-computers"
PYTHON
