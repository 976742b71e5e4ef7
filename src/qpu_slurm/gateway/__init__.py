# SPDX-License-Identifier: Apache-2.0
"""The gateway: jobs use a QPU through it without ever holding the service's credential.

    messages    what hooks and steps ask of it, and how it answers
    client      how they ask
    command     `qpu-slurm gateway`
    server      the process: its parts, the reaper's schedule, systemd
    listening   on a socket that systemd holds, or on its own; TLS
    connections who gets one; drain has how they end as the gateway does
    app         the web application: every route
    gateway     what the routes share: journal, broker, keys
    callers     which job a request comes from
    requests    how requests are logged, counted and read; answers has the errors
    relay       how a service's answers are handed on
    routes/     our own protocol
    ibm/        the dialect of IBM's clients: each kind of service has such a folder

Its server needs the extra `qpu_slurm[gateway]`; messages and client do not.
"""
