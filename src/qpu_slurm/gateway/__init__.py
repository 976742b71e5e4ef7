# SPDX-License-Identifier: Apache-2.0
"""The gateway: jobs use a QPU through it without ever holding the service's credential.

    messages    the requests of hooks and steps, and the answers
    client      sends them
    command     `qpu-slurm gateway`
    server      the process: its parts, the reaper's schedule, systemd's watchdog
    listening   its sockets: systemd's, or its own; TLS
    connections their limits; drain closes them when the gateway stops
    app         the web application: every route
    gateway     what the routes share: journal, broker, keys
    callers     which job a request comes from
    requests    logs, counts and reads requests; answers has the errors
    relay       passes a service's answers on to clients
    routes/     our own protocol
    ibm/        the dialect of IBM's clients; each kind of service has a folder of its own

The server needs the extra `qpu_slurm[gateway]`. messages and client do not.
"""
