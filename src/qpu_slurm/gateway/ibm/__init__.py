# SPDX-License-Identifier: Apache-2.0
"""IBM's dialect: what clients of the Qiskit Runtime REST API expect.

    dialect     what the gateway keeps for it: tokens, and the services behind it
    routes      every route, and its prefix; backends, cloud, sessions and tasks answer
    requests    whose request it is, and what it says; answers has the shape of errors
    tokens      what clients get for a job key, in IAM's place
    submission  what a job may submit, checked by json_scan while it passes by
    upstream    the service, asked with the admin's credential

The gateway itself imports none of it: `app` adds it.
"""
