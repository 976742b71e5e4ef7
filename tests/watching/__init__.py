# SPDX-License-Identifier: Apache-2.0
"""Dashboard and alerts, with a real Prometheus that watches a real gateway (`make test-watching`)."""
