# SPDX-License-Identifier: Apache-2.0
"""IBM's dialect: the routes, answers and headers that clients of the Qiskit Runtime REST API expect."""
