# SPDX-License-Identifier: Apache-2.0
"""IQM Server, over its REST API.

    service.py  what a provider can do, in the API's words
    ledger.py   the tasks that were submitted, which the API does not list
    access.py   how a QPU is reached
    device.py   what circuits have to fit, and the architecture in the words of IBM's API
    answers.py  the answers' shapes

The API has no sessions. It stores one tag with a job, and finds a job by its id alone. So the ids are written
down here. Read from qrmi 0.26 and iqm-client 36, which publish what they ask and what they expect.
"""
