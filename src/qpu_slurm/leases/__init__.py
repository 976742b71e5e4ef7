# SPDX-License-Identifier: Apache-2.0
"""Who holds which QPU: leases, their crash-safe journal, and the broker that grants and ends them."""
