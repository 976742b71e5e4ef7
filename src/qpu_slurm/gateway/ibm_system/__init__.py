# SPDX-License-Identifier: Apache-2.0
"""QPUs on a centre's own premises, as jobs see them: like QPUs in the cloud.

The IBM Quantum System API has neither sessions nor tenants, and its tasks travel through object storage. A
job gets none of that, nor a key to any of it. It asks the gateway in the cloud's words: `gateway.ibm` checks
what the job's lease covers, and asks its upstream. For such a QPU, the upstream is not the service, but
`upstream.py`, which does with the provider what the cloud's service would do.

    upstream.py   answers what depends on the kind of service; `gateway.gates` answers the rest
    documents.py  tasks, in the cloud's shapes

So whatever runs on a QPU in the cloud runs on one on the premises: task_runner, the Python API, programs for
qiskit-ibm-runtime and for QRMI.
"""
