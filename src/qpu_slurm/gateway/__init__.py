# SPDX-License-Identifier: Apache-2.0
"""The gateway: jobs use a QPU through it without ever holding the service's credential.

    messages    what hooks and steps ask of it, and how it answers
    client      how they ask
    command     `qpu-slurm gateway`
    server      the process: listening, the reaper's schedule, systemd
    app         the web application; routes/ holds what it answers, gateway what is shared by all of it
    holders     whose request it is; keys and tokens are what is shown
    submission  what a job may submit, checked by scan while it passes by
    upstream    the service, asked with the admin's credential
    metrics, usage, notify, answers

Its server needs the extra `qpu_slurm[gateway]`; messages and client do not.
"""
