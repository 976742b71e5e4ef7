# SPDX-License-Identifier: Apache-2.0
"""The IBM Quantum System API: what a QPU on a centre's own premises speaks.

It has no sessions. A task takes one of the QPU's lanes until it is deleted. Its input, its result and its log
travel through object storage, by presigned URLs that come with the task. The same QPUs execute these tasks
and those of the cloud's API.

    tasks      one task: its document, its way through the storage
    system     the state: who has which lane
    storage    the object storage below /s3: moto's, with the signatures checked
    answers    errors, in this API's shape

routes/system.py holds what is answered.

Its facts come from IBM's published API reference and from IBM's published simulator of this API; `(guess)`
marks what neither confirms.
"""
