# SPDX-License-Identifier: Apache-2.0
"""The IBM Quantum System API: QPUs on a centre's own premises.

    service.py  what a provider can do, in the API's words
    storage.py  the object storage through which inputs and results travel
    access.py   how a QPU is reached
    keys.py     where a task's objects are, and the tags that their names hold
    answers.py  the answers' shapes

The API is described at https://quantum.cloud.ibm.com/docs/api/quantum-system-rest. It has neither sessions
nor tenants, stores no tags, and does not say whether a task waits or runs. A task's id is its submitter's
choice, so one that is submitted twice is there once. A task holds one of the QPU's lanes until it is deleted.

IAM's tokens and what circuits have to fit are as in the cloud: `providers.ibm` reads both. Requests to the
storage are signed with botocore, which the extra `ibm-system` installs.
"""
