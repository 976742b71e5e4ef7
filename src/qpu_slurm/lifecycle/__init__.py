# SPDX-License-Identifier: Apache-2.0
"""What happens as a job starts, as its steps start, and as it ends: one implementation for hooks and gateway.

    start     which QPUs a job gets, or why it has to wait or to end
    end       what is released when a job, or a part of it, has ended
    leasing   what grants leases and ends them, as these need it

With the gateway, its routes call this, and Slurm's hooks are a small client (plugin/client). Without one, the
hooks call it in their own process (`hooks/`).
"""
