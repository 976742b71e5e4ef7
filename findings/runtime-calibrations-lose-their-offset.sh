#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Packages: qiskit 2.6.2, qiskit-ibm-runtime 0.51.0.
#
# One would guess that a calibration's date with an offset, such as 15:16:25-05:00, is the same moment for all of
# qiskit-ibm-runtime: it parses dates with dateutil, which keeps offsets. But what comes from a server loses its
# offset and is read as UTC, while its snapshots (FakeFez) keep it. So a server that serves a snapshot as it is
# seems to have calibrated five hours earlier than the snapshot says. A server has to send UTC.
# Source: qiskit_ibm_runtime/utils/backend_decoder.py (properties_from_server_data),
# qiskit_ibm_runtime/utils/converters.py (utc_to_local).
#
# Seen: one file, two times: 20:16:25 UTC as a snapshot, 15:16:25 UTC from a server.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check qiskit==2.6.2 qiskit-ibm-runtime==0.51.0
"$folder/venv/bin/python" - <<'EOF'
import json
from datetime import timedelta, timezone
from pathlib import Path

from qiskit_ibm_runtime import fake_provider
from qiskit_ibm_runtime.utils.backend_decoder import properties_from_server_data

file = Path(fake_provider.__file__).parent / "backends" / "fez" / "props_fez.json"
written = json.loads(file.read_text())
snapshot = fake_provider.FakeFez().properties().last_update_date.astimezone(timezone.utc)
server = properties_from_server_data(json.loads(file.read_text())).last_update_date.astimezone(timezone.utc)
print(f"written: {written['last_update_date']}; as a snapshot: {snapshot}; from a server: {server}")
assert written["last_update_date"].endswith("-05:00")
assert snapshot - server == timedelta(hours=5)
EOF
