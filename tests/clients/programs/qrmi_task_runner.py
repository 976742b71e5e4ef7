# SPDX-License-Identifier: Apache-2.0
"""An input executed by upstream's task_runner."""

import json
import subprocess
import sys
from pathlib import Path

QASM = (
    'OPENQASM 3.0; include "stdgates.inc"; bit[3] meas; x $0; x $2;'
    " meas[0] = measure $0; meas[1] = measure $1; meas[2] = measure $2;"
)

parameters = {"pubs": [[QASM, [], 100]], "version": 2, "support_qiskit": False}
Path("input.json").write_text(json.dumps({"program_id": "sampler", "parameters": parameters}))
runner = [sys.executable, "-m", "qrmi.tools.task_runner.main"]
subprocess.run([*runner, "ibm_fez", "input.json", "output.json"], check=True, stdout=subprocess.DEVNULL)
samples = json.loads(Path("output.json").read_text())["results"][0]["data"]["meas"]["samples"]
print({format(int(sample, 16), "03b"): samples.count(sample) for sample in samples})
