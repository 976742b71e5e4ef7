# SPDX-License-Identifier: Apache-2.0
"""A program of QRMI's library: acquire, execute, release."""

import json
import os
import time

from qrmi import Payload, QuantumResource, ResourceType, TaskStatus

QASM = (
    'OPENQASM 3.0; include "stdgates.inc"; bit[3] meas; x $0; x $2;'
    " meas[0] = measure $0; meas[1] = measure $1; meas[2] = measure $2;"
)

ACQUIRED = "ibm_fez_QRMI_JOB_ACQUISITION_TOKEN"

kind = ResourceType.IBMQiskitRuntimeService  # the name of the type that all releases know
session = QuantumResource("ibm_fez", kind).acquire()
os.environ[ACQUIRED] = session
resource = QuantumResource("ibm_fez", kind)
text = json.dumps({"pubs": [[QASM, [], 100]], "version": 2, "support_qiskit": False})
task = resource.task_start(Payload.QiskitPrimitive(input=text, program_id="sampler"))
while resource.task_status(task) in {TaskStatus.Queued, TaskStatus.Running}:
    time.sleep(0.05)
samples = json.loads(resource.task_result(task).value)["results"][0]["data"]["meas"]["samples"]
print({format(int(sample, 16), "03b"): samples.count(sample) for sample in samples})
