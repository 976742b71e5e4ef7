# SPDX-License-Identifier: Apache-2.0
"""QPUs whose service has no sessions, as programs of IBM's dialect see them: like QPUs in the cloud.

task_runner, the Python API and other programs ask the gateway in the cloud's words. `gateway.ibm` checks
what the job's lease covers, and asks its upstream. For such a QPU, the upstream is code that does with the
provider what the cloud's service would do. What does not depend on the kind of service is here:

    upstream.py   answers requests about gates, and hands those about tasks on to the kind's own code
    documents.py  the answers, in the cloud's shapes
    inputs.py     submissions, of which the parameters go to the service
"""
