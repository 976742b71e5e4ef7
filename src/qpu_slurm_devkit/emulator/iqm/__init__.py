# SPDX-License-Identifier: Apache-2.0
"""IQM Server, as the emulator serves it at its URL's root, beside IBM's API.

    chip       the QPUs: their layout, their gates, their errors
    server     the jobs, in the queues of their QPUs
    tasks      one job, as the server describes it
    answers    the server's errors

`batches` executes circuits, in a child process.

What is served was taken from the requests and models of iqm-client 35 and 36 and of qrmi 0.26. A job is
found by its id alone: the API lists none.
"""
