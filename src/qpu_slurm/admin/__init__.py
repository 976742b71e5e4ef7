# SPDX-License-Identifier: Apache-2.0
"""What an admin's commands print: diagnosis, QPUs, reports, timelines."""
