# SPDX-License-Identifier: Apache-2.0
"""IQM Server's dialect, and QPUs behind an IQM Server in IBM's.

iqm-client and QRMI show the job key in place of IQM's token. They see one QPU, their lease's, and its tasks.
What they read of the QPU and of a task is the server's own answer.

    routes.py    which paths there are, and which of them IBM's dialect has as well
    requests.py  finds the caller and the task of a request
    qpus.py      what the QPU is like
    jobs.py      tasks, which IQM calls jobs
    service.py   the server itself, asked with the admin's token
    upstream.py  answers IBM's dialect, which our own task_runner speaks
    answers.py   errors in IQM's shape
"""
