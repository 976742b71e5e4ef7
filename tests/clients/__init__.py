# SPDX-License-Identifier: Apache-2.0
"""Releases of the clients that users have, each in an environment of its own, run by a job's programs."""
